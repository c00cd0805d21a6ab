-- Say that a replica is alive.
-- KEYS  1 replicas ZSET (id -> expiry)
-- ARGV  1 replica  2 time to live in ms
local t = redis.call('TIME')
redis.call('ZADD', KEYS[1], t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[2], ARGV[1])
return 1
