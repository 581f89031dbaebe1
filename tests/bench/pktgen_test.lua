-- SPDX-License-Identifier: BSD-3-Clause
-- bench/pktgen/*.lua against a pktgen of paper: a device that loses what exceeds its capacity, in virtual time.
local folder = arg[1]
package.path = folder .. "/?.lua;" .. package.path
local search, traffic = require("search"), require("traffic")

local checks = 0
local function check(condition, what)
  checks = checks + 1
  if not condition then error("failed: " .. what, 2) end
end

-- ---- the search, with devices that are functions ----
local function device(capacity, reachable)
  return function(rate)
    local real = math.min(rate, reachable or 1000)
    local sent = math.floor(real * 100000)
    return {sent = sent, received = math.min(sent, math.floor(capacity * 100000)), rate = real}
  end
end
local function options(changes)
  local result = {low = 0.5, high = 100, precision = 0.5, loss = 0, votes = 3, seconds = 1, confirm_seconds = 2}
  for key, value in pairs(changes or {}) do result[key] = value end
  return result
end

for _, capacity in ipairs({3, 37.2, 61.7, 99}) do
  local found = search.highest(device(capacity), options())
  check(found.rate <= capacity and found.rate > capacity - 0.6, "NDR of " .. capacity .. " found as " .. found.rate)
  check(found.limited_by == "device" and found.confirmed, "by the device")
  local lossy = search.highest(device(capacity), options({loss = 0.05}))
  check(lossy.rate >= found.rate and lossy.rate <= capacity / 0.95 + 1e-6, "PDR of " .. capacity .. " found as " .. lossy.rate)
end
check(search.highest(device(200), options()).limited_by == "nothing", "a device faster than the line")
local slow = search.highest(device(200, 42), options())
check(slow.limited_by == "generator" and math.abs(slow.rate - 42) < 1e-6, "a generator that does not reach the rate is said so")
check(search.highest(device(0), options()).rate == 0, "a device that loses everything has no throughput")
check(search.loss({sent = 0, received = 0}) == 1, "nothing sent is no success")

-- A frame lost now and then: one bad trial of three does not sink a rate, two do.
local count = 0
local function hiccup(every)
  return function(rate)
    count = count + 1
    local lost = (count % every == 0) and 1 or 0
    return {sent = 1000, received = rate <= 50 and 1000 - lost or 500, rate = rate}
  end
end
check(search.highest(hiccup(5), options({confirm_seconds = 0})).rate > 45, "one hiccup in five is outvoted")

-- A rate that holds briefly and not for long is not stated.
local tired = search.highest(function(rate, seconds)
  return {sent = 1000, received = (rate <= 80 and seconds < 2 or rate <= 79) and 1000 or 900, rate = rate}
end, options())
check(tired.rate <= 79 and tired.confirmed, "the confirmation steps down: " .. tired.rate)

-- ---- the words to pktgen ----
local function paper(version, capacity_pps)
  local state = {rate = 0, sent = 0, received = 0, sending = false, ranges = {}, calls = {}, size = 64, quit = false}
  local function note(name) return function(...) state.calls[#state.calls + 1] = {name, ...} end end
  local function row() return {opackets = math.floor(state.sent), ipackets = math.floor(state.received)} end
  local range = {}
  for _, name in ipairs({"dst_mac", "src_mac", "vlan_id", "dst_ip", "src_ip", "src_port", "dst_port", "pkt_size"}) do
    range[name] = function(_, field, value)
      state.ranges[name] = state.ranges[name] or {}
      state.ranges[name][field] = value
    end
  end
  range.ip_proto = note("ip_proto")
  local it = {
    range = range, reset = note("reset"), set_type = note("set_type"), set_proto = note("set_proto"), vlan = note("vlan"),
    set_range = note("set_range"), latency = note("latency"),
    set = function(_, what, value)
      if what == "rate" then state.rate = value end
      if what == "size" then state.size = value end
    end,
    clr = function() state.sent, state.received = 0, 0 end,
    start = function() state.sending = true end,
    stop = function() state.sending = false end,
    delay = function(ms)
      if not state.sending then return end
      local pps = state.rate / 100 * 10000 * 1e6 / ((state.size + 24) * 8)
      state.sent = state.sent + pps * ms / 1000
      state.received = state.received + math.min(pps, capacity_pps) * ms / 1000
    end,
    linkState = function(port) return {[tonumber(port)] = "<UP-10000-FD>"} end,
    pktStats = function(port) return {[tonumber(port)] = {latency = {num_pkts = 10, min_us = 1.0, avg_us = 2.5, max_us = 9.0}}} end,
    quit = function() state.quit = true end,
  }
  if version == "23.03" then
    it.portStats = function(port, what)
      assert(what == "port", "23.03 wants the word")
      return {[tonumber(port)] = row()}
    end
  else
    it.portStats = function(port, what)
      assert(what == nil, "later ones refuse it")
      return {[tonumber(port)] = {curr = row()}}
    end
  end
  return it, state
end

check(traffic.address_after("10.0.0.250", 10) == "10.0.1.4", "addresses carry")
check(traffic.mac_after("0a:00:00:00:00:ff", 1) == "0a:00:00:00:01:00", "MACs carry")
check(traffic.json({b = {1, 2.5}, a = 'x"y'}) == '{"a":"x\\u0022y","b":[1,2.5]}', traffic.json({b = {1, 2.5}, a = 'x"y'}))

local real_getenv, environment = os.getenv, {SECONDS = "1", CONFIRM = "2", SETTLE = "0.1", SIZES = "64,1518"}
os.getenv = function(name) return environment[name] or real_getenv(name) end

for _, version in ipairs({"23.03", "later"}) do
  for _, script in ipairs({"rfc2544", "enis", "latency"}) do
    local state
    pktgen, state = paper(version, 3e6)
    local lines, real_print = {}, print
    print = function(text) lines[#lines + 1] = text end
    local ok, trouble = pcall(dofile, folder .. "/" .. script .. ".lua")
    print = real_print
    check(ok, version .. " " .. script .. ": " .. tostring(trouble))
    check(state.quit, script .. " ends pktgen")
    local vlan, mac, ip = state.ranges.vlan_id, state.ranges.dst_mac, state.ranges.dst_ip
    check(vlan.min == 101 and vlan.max == 220 and vlan.inc == 1, "120 VLANs")
    check(mac.max == "0a:00:00:00:01:77" and ip.max == "10.0.0.129", "as many MACs and addresses: " .. mac.max .. " " .. ip.max)
    local results = {}
    for _, line in ipairs(lines) do
      if line:sub(1, 1) == "{" then results[#results + 1] = line end
    end
    check(#results == ({rfc2544 = 4, enis = 2, latency = 3})[script], script .. " states " .. #results .. " results")
    if script == "rfc2544" then
      local value = tonumber(results[1]:match('"value":([%d.]+)'))
      check(value > 2.85 and value <= 3.001, "64 B: the device's 3 Mpps, found " .. tostring(value))
      check(tonumber(results[3]:match('"value":([%d.]+)')) < 0.82, "1518 B: the line's rate")
    end
  end
end
print(checks .. " checks, all passed")
