-- Pass an entry on to the next mailbox.
-- Guarantees: acts only if the entry was still pending (XACK = 1), so a message is in exactly one
-- mailbox; a zombie whose entry was taken over changes nothing. A key that is in flight already
-- (a webhook that a dealer put meanwhile) is not added a second time.
-- KEYS  1 from  2 to  3 in-flight ZSET  4 wake list
-- ARGV  1 group  2 entry id  3 lease in ms  4 key  5 next key  6 job  7 facts  8 deliveries
--       9 low-water mark of `from` (-1: nobody waits for room there)
-- Returns 1 if it was ours to pass on, else 0.
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[2])
local t = redis.call('TIME')
local doubt = t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[3]
local fresh = 1
if ARGV[4] ~= ARGV[5] then
  redis.call('ZREM', KEYS[3], ARGV[4])
  fresh = redis.call('ZADD', KEYS[3], 'NX', doubt, ARGV[5])
else
  redis.call('ZADD', KEYS[3], doubt, ARGV[5])
end
if fresh == 1 then
  redis.call('XADD', KEYS[2], '*', 'k', ARGV[5], 'm', ARGV[6], 'x', ARGV[7], 'n', ARGV[8])
end
if redis.call('XLEN', KEYS[1]) <= tonumber(ARGV[9]) and redis.call('LLEN', KEYS[4]) == 0 then
  redis.call('RPUSH', KEYS[4], 'low')
end
return 1
