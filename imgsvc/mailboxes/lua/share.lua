-- Share the connections to origins out among replicas, each of which asks again and again.
-- Guarantees: the shares that replicas hold of an origin are together never more than it may have:
-- none while it rests, one connection until it works again after a rest. Open connections count
-- too, in a rest as well. A share lapses if its replica has not asked for so long. No replica gets
-- more than a fair share.
-- KEYS  a hash for each origin: share:<replica> -> "<share> <open> <expiry>", and what failed
-- ARGV  1 replica  2 connections that one origin may have  3 ms for which a share is held
--       then for each origin: 4 connections open to it, -1 to give the share back  5 '1' if it
--       worked since the last time  6 '1' if a share is wanted, else only what is open is told
-- Returns for each origin {share, ms it rests, rests in a row, code of the last failure}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local mine, most, ttl = 'share:' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local answers = {}
for i, key in ipairs(KEYS) do
  local open, worked, wants = tonumber(ARGV[1 + 3 * i]), ARGV[2 + 3 * i], ARGV[3 + 3 * i]
  -- Of the other replicas: the sum of their shares, and of what they have open if that is more.
  local shared, held, replicas = 0, 0, 1
  local state = {}
  local found = redis.call('HGETALL', key)
  for j = 1, #found, 2 do
    if string.sub(found[j], 1, 6) ~= 'share:' then
      state[found[j]] = found[j + 1]
    elseif found[j] ~= mine then
      local share, theirs, expiry = string.match(found[j + 1], '^(%d+) (%d+) (%d+)$')
      if tonumber(expiry) > now then
        shared, held = shared + share, held + math.max(share, theirs)
        replicas = replicas + 1
      else
        redis.call('HDEL', key, found[j])
      end
    end
  end
  local rest = math.max(0, tonumber(state['until'] or 0) - now)
  if worked == '1' and rest == 0 then
    redis.call('HDEL', key, 'failures', 'rests', 'until', 'code')
    state = {}
  end
  local allowed = rest > 0 and 0 or state.rests and 1 or most
  local fair = math.max(1, math.floor(allowed / replicas))
  local share = math.max(0, math.min(fair, allowed - shared, most - held))
  if wants ~= '1' then share = 0 end
  if open < 0 then
    redis.call('HDEL', key, mine)
  else
    redis.call('HSET', key, mine, share .. ' ' .. open .. ' ' .. (now + ttl))
    if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
  end
  answers[i] = {share, rest, tonumber(state.rests or 0), state.code or ''}
end
return answers
