-- Finish with an entry: its work is recorded in the ledger, or it is void.
-- Guarantees: acts only if the entry was still pending; nothing of it stays behind.
-- KEYS  1 mailbox  2 in-flight ZSET  3 wake list
-- ARGV  1 group  2 entry id  3 key  4 low-water mark of the mailbox (-1: nobody waits for room)
-- Returns 1 if it was ours, else 0.
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('ZREM', KEYS[2], ARGV[3])
if redis.call('XLEN', KEYS[1]) <= tonumber(ARGV[4]) and redis.call('LLEN', KEYS[3]) == 0 then
  redis.call('RPUSH', KEYS[3], 'low')
end
return 1
