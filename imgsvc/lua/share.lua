-- Share the places at origins out among replicas, each of which asks again and again.
-- Guarantees: the places that replicas hold at an origin are together never more than there are:
-- none while it rests, one until it works again after a rest. What a replica holds is free again
-- when it has not asked for so long. Who asks for more than a fair share gets a fair share.
-- KEYS  a hash for each origin: share:<replica> -> "<places held> <expiry>", and what failed
-- ARGV  1 replica  2 places at one origin  3 ms for which a share is held
--       then for each origin: 4 connections open to it, -1 to give the share back  5 '1' if it
--       worked since the last time
-- Returns for each origin {places, ms it rests, rests in a row, code of the last failure}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local mine, ttl = 'share:' .. ARGV[1], tonumber(ARGV[3])
local answers = {}
for i, key in ipairs(KEYS) do
  local open, worked = tonumber(ARGV[2 + 2 * i]), ARGV[3 + 2 * i] == '1'
  local state, held, replicas = {}, 0, 1
  local found = redis.call('HGETALL', key)
  for j = 1, #found, 2 do
    if string.sub(found[j], 1, 6) ~= 'share:' then
      state[found[j]] = found[j + 1]
    elseif found[j] ~= mine then
      local places, expiry = string.match(found[j + 1], '^(%d+) (%d+)$')
      if tonumber(expiry) > now then
        held, replicas = held + places, replicas + 1
      else
        redis.call('HDEL', key, found[j])
      end
    end
  end
  local rest = math.max(0, tonumber(state['until'] or 0) - now)
  if worked and rest == 0 then
    redis.call('HDEL', key, 'failures', 'rests', 'until', 'code')
    state = {}
  end
  local there = rest > 0 and 0 or state.rests and 1 or tonumber(ARGV[2])
  local fair = math.max(1, math.floor(there / replicas))
  local places = math.max(0, math.min(fair, there - held))
  if open < 0 or rest > 0 then
    redis.call('HDEL', key, mine)
  else
    redis.call('HSET', key, mine, math.max(open, places) .. ' ' .. (now + ttl))
    if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
  end
  answers[i] = {places, rest, tonumber(state.rests or 0), state.code or ''}
end
return answers
