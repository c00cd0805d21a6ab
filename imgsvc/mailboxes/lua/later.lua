-- Put an entry aside until it is due, on Redis' clock.
-- Guarantees: acts only if the entry was still pending; the key stays in flight while it waits,
-- so no dealer deals it again. The count of replicas it was lost with stays with it: otherwise an
-- image that kills its replicas would never be given up. How many of each request wait is counted.
-- KEYS  1 mailbox  2 delayed ZSET  3 in-flight ZSET  4 waiting hash (request -> entries)
-- ARGV  1 group  2 entry id  3 lease in ms  4 key  5 job  6 delay in ms
--       7 how often it was lost so far
-- Returns 1 if it was ours, else 0.
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[2])
local t = redis.call('TIME')
local due = t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[6]
if redis.call('ZADD', KEYS[2], due, cjson.encode({ARGV[4], ARGV[5], ARGV[7]})) == 1 then
  redis.call('HINCRBY', KEYS[4], string.match(ARGV[4], '^[^/]+'), 1)
end
redis.call('ZADD', KEYS[3], due + ARGV[3], ARGV[4])
return 1
