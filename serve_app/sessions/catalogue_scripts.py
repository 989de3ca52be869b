"""The Lua scripts of the catalogue: one atomic step on one session each, which checks its owner."""

from serve_app.sessions.keys import NOW_MS
from serve_app.sessions.scripts import READ
from serve_app.store.script import Script

# KEYS: meta turns feedback. ARGV: owner ttl_ms field value …. It may be sent twice.
CREATE = Script(f"""{READ}{NOW_MS}
if redis.call('EXISTS', KEYS[1]) == 0 then
    local now = now_ms()
    redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'created', now, 'updated', now)
    for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return read(KEYS[1], KEYS[2], KEYS[3])
""")

# KEYS: meta turns feedback ids. ARGV: owner, turn that becomes active or "", number of fields to
# delete, these, field value …. Returns {state, the session}.
PATCH = Script(f"""{READ}
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return {{'missing'}} end
if ARGV[2] ~= '' then
    if redis.call('HEXISTS', KEYS[4], ARGV[2]) == 0 then return {{'no turn'}} end
    redis.call('HSET', KEYS[1], 'active', ARGV[2])
end
local first = 4 + ARGV[3]
for i = 4, first - 1 do redis.call('HDEL', KEYS[1], ARGV[i]) end
for i = first, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return {{'patched', read(KEYS[1], KEYS[2], KEYS[3])}}
""")

# KEYS: gone extras, then all other keys, of which meta is the first. ARGV: owner, a token of this
# delete, gone_ms. Sent again, it finds its own token.
DELETE = Script("""
if redis.call('HGET', KEYS[3], 'owner') ~= ARGV[1] then
    return redis.call('GET', KEYS[1]) == ARGV[2] and 1 or 0
end
for _, key in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do redis.call('DEL', key) end
for i = 2, #KEYS do redis.call('DEL', KEYS[i]) end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""")

# KEYS: meta turns feedback ids. ARGV: owner, turn, the packed feedback or "". The feedback expires
# with the session. Returns {state, the session}.
FEEDBACK = Script(f"""{READ}
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return {{'missing'}} end
if redis.call('HEXISTS', KEYS[4], ARGV[2]) == 0 then return {{'no turn'}} end
if ARGV[3] == '' then
    redis.call('HDEL', KEYS[3], ARGV[2])
else
    redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
    redis.call('PEXPIRE', KEYS[3], redis.call('PTTL', KEYS[1]))
end
return {{'patched', read(KEYS[1], KEYS[2], KEYS[3])}}
""")
