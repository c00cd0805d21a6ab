-- Take from what a client may have, or say how long to wait: the generic cell rate algorithm
-- (GCRA), a leaky bucket that stores one number, the theoretical arrival time (ITU-T I.371).
-- KEYS  1 the client's bucket
-- ARGV  1 how much is allowed in the period  2 period in ms  3 how much to take; less than 0 gives
--       back, 0 asks whether more was taken than is allowed  4 '1': take it in any case
-- Returns {1 if taken, how much remains, ms until all of it does, ms to wait}.
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local interval = ARGV[2] / ARGV[1]
local owed = math.max(0, tonumber(redis.call('GET', KEYS[1]) or now) - now)
local cost = interval * ARGV[3]
local wait = owed + cost - ARGV[2]
if wait < 0.01 then -- less is an error of rounding, as it is below
  wait = 0
end
local taken = wait == 0 or ARGV[4] == '1'
if taken and cost ~= 0 then
  owed = math.max(0, owed + cost)
  redis.call('SET', KEYS[1], string.format('%.3f', now + owed), 'PX', math.ceil(owed) + 1)
end
local remaining = math.max(0, math.floor((ARGV[2] - owed) / interval + 0.01))
return {taken and 1 or 0, remaining, math.ceil(owed), math.ceil(wait)}
