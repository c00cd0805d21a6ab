-- Share the places at origins out among replicas, each of which asks again and again.
-- Guarantees: the places that replicas hold at an origin are together never more than there are:
-- none while it rests, one until it works again after a rest. Connections that are open take
-- places too, however it stands. What a replica holds is free again when it has not asked for so
-- long. Who asks for more than a fair share gets a fair share.
-- KEYS  a hash for each origin: share:<replica> -> "<places> <open> <expiry>", and what failed
-- ARGV  1 replica  2 places at one origin  3 ms for which a share is held
--       then for each origin: 4 connections open to it, -1 to give the share back  5 '1' if it
--       worked since the last time  6 '1' if it is to be visited, else no places are wanted
-- Returns for each origin {places, ms it rests, rests in a row, code of the last failure}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local mine, limit, ttl = 'share:' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local answers = {}
for i, key in ipairs(KEYS) do
  local open, worked, wants = tonumber(ARGV[1 + 3 * i]), ARGV[2 + 3 * i], ARGV[3 + 3 * i]
  local state, given, held, replicas = {}, 0, 0, 1
  local found = redis.call('HGETALL', key)
  for j = 1, #found, 2 do
    if string.sub(found[j], 1, 6) ~= 'share:' then
      state[found[j]] = found[j + 1]
    elseif found[j] ~= mine then
      local places, taken, expiry = string.match(found[j + 1], '^(%d+) (%d+) (%d+)$')
      if tonumber(expiry) > now then
        given, held = given + places, held + math.max(places, taken)
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
  local there = rest > 0 and 0 or state.rests and 1 or limit
  local fair = math.max(1, math.floor(there / replicas))
  local places = math.max(0, math.min(fair, there - given, limit - held))
  if wants ~= '1' then places = 0 end
  if open < 0 then
    redis.call('HDEL', key, mine)
  else
    redis.call('HSET', key, mine, places .. ' ' .. open .. ' ' .. (now + ttl))
    if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
  end
  answers[i] = {places, rest, tonumber(state.rests or 0), state.code or ''}
end
return answers
