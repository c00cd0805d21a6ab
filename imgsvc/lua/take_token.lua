-- Let one call through, or say how long to wait: the generic cell rate algorithm (GCRA), a leaky
-- bucket that stores one number, the theoretical arrival time (ITU-T I.371).
-- KEYS  1 the client's bucket
-- ARGV  1 calls allowed in the period  2 period in ms  3 cost of this call, in calls
-- Returns {1 if let in, calls remaining, ms until full again, ms to wait}.
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local interval = ARGV[2] / ARGV[1]
local cost = interval * ARGV[3]
local arrival = math.max(now, tonumber(redis.call('GET', KEYS[1]) or now))
local wait = arrival + cost - ARGV[2] - now
if wait > 0 then
  return {0, math.floor((ARGV[2] - (arrival - now)) / interval), math.ceil(arrival - now), math.ceil(wait)}
end
arrival = arrival + cost
redis.call('SET', KEYS[1], string.format('%.3f', arrival), 'PX', math.ceil(arrival - now) + 1)
return {1, math.floor((ARGV[2] - (arrival - now)) / interval), math.ceil(arrival - now), 0}
