-- Move an entry to the dead mailbox, with the reason.
-- Guarantees: acts only if the entry was still pending; a dead entry stays until someone acts.
-- KEYS  1 mailbox  2 dead mailbox  3 in-flight ZSET
-- ARGV  1 group  2 entry id  3 key  4 job  5 reason
-- Returns 1 if it was ours, else 0.
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[3])
redis.call('XADD', KEYS[2], '*', 'k', ARGV[3], 'm', ARGV[4], 'reason', ARGV[5], 'from', KEYS[1])
return 1
