"""The Lua scripts of the Redis session store: one atomic step on one session each.

All keys of a session share the hash tag `{uid}`, so a cluster keeps them on one node. A turn is
opaque bytes here.
"""

from serve_app.store.script import Script

# KEYS: meta turns. ARGV: owner.
LOAD = Script("""
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return false end
return redis.call('LRANGE', KEYS[2], 0, -1)
""")

# KEYS: meta turns keys lease. ARGV: owner key token lease_ms may_create.
# Returns {state, turns or the key of the lease that is held}.
BEGIN = Script("""
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] or not owner and ARGV[5] == '0' then return {'missing'} end
local turns = redis.call('LRANGE', KEYS[2], 0, -1)
if redis.call('HEXISTS', KEYS[3], ARGV[2]) == 1 then return {'stored', turns} end
local mine = ARGV[3] .. ARGV[2]
local held = redis.call('GET', KEYS[4])
if held and held ~= mine then return {'busy', string.sub(held, #ARGV[3] + 1)} end
redis.call('SET', KEYS[4], mine, 'PX', ARGV[4])
return {'leased', turns}
""")

# KEYS: lease. ARGV: token key lease_ms.
RENEW = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] .. ARGV[2] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
""")

# KEYS: lease. ARGV: token key.
RELEASE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] .. ARGV[2] then return 0 end
return redis.call('DEL', KEYS[1])
""")

# KEYS: meta turns keys lease. ARGV: owner key token num_turns turn ttl_ms.
COMMIT = Script("""
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] then return false end
local turn = ARGV[5]
local index = redis.call('HGET', KEYS[3], ARGV[2])
if index then
    turn = redis.call('LINDEX', KEYS[2], index)
elseif redis.call('LLEN', KEYS[2]) ~= tonumber(ARGV[4]) then
    return false
else
    redis.call('HSET', KEYS[1], 'owner', ARGV[1])
    redis.call('RPUSH', KEYS[2], turn)
    redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
    for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[6]) end
end
if redis.call('GET', KEYS[4]) == ARGV[3] .. ARGV[2] then redis.call('DEL', KEYS[4]) end
return turn
""")
