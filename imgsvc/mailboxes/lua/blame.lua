-- Note that an origin failed, and have it rest if it asks for that or keeps failing.
-- Guarantees: failures in a row are counted over all replicas. Each rest in a row is longer. While
-- an origin rests nobody has a share of its connections, but open ones count. Failures of what was
-- under way only make the rest longer, if they ask for it.
-- KEYS  1 the origin's hash, as of share.lua
-- ARGV  1 code of the failure  2 '1' if it worked since the one before  3 ms for which it asks to
--       be left alone (0: it does not say how many, -1: it does not ask)  4 failures in a row before
--       it rests unasked  5 ms of the first rest  6 of the longest  7 ms for which failures are
--       remembered
-- Returns {ms that it rests, rests in a row, 1 if this rest begins now}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local asked, longest = tonumber(ARGV[3]), tonumber(ARGV[6])
local asks = asked >= 0
asked = math.min(asked, longest)
local until_ms = tonumber(redis.call('HGET', KEYS[1], 'until') or 0)
local begins = false

if until_ms > now then
  if asks then until_ms = math.max(until_ms, now + asked) end
else
  if ARGV[2] == '1' then redis.call('HDEL', KEYS[1], 'failures', 'rests') end
  local failures = redis.call('HINCRBY', KEYS[1], 'failures', 1)
  local rests = tonumber(redis.call('HGET', KEYS[1], 'rests') or 0)
  begins = asks or rests > 0 or failures >= tonumber(ARGV[4])
  if begins then
    redis.call('HSET', KEYS[1], 'rests', rests + 1)
    for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
      if string.sub(field, 1, 6) == 'share:' then
        local share = redis.call('HGET', KEYS[1], field)
        local granted, open, expiry = string.match(share, '^(%d+) (%d+) (%d+)$')
        -- Its replica may have opened all of its share since it last told.
        open = math.max(granted, open)
        redis.call('HSET', KEYS[1], field, '0 ' .. open .. ' ' .. expiry)
      end
    end
    until_ms = now + math.max(asked, math.min(ARGV[5] * 2 ^ rests, longest))
  end
end
redis.call('HSET', KEYS[1], 'code', ARGV[1], 'until', string.format('%d', until_ms))
local rest = math.max(0, until_ms - now)
redis.call('PEXPIRE', KEYS[1], rest + ARGV[7])
return {rest, tonumber(redis.call('HGET', KEYS[1], 'rests') or 0), begins and 1 or 0}
