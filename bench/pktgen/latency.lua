-- SPDX-License-Identifier: BSD-3-Clause
-- Latency at a tenth, a half and nine tenths of a rate (RATE, per cent of the link: give what rfc2544.lua found as PDR), as
-- pktgen's own latency packets measure it.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local traffic = require("traffic")

local settings = traffic.settings()
local full = tonumber(os.getenv("RATE") or "10")
local port = tostring(settings.trunk)
local size = settings.sizes[1]
traffic.prepare(settings, size, "udp")
traffic.trial(settings, size, math.min(10, full), 2)
for _, share in ipairs({0.1, 0.5, 0.9}) do
  pktgen.set(port, "rate", full * share)
  -- 23.03 says "on" or "enable", later ones only the latter.
  if not pcall(pktgen.latency, port, "enable") then pktgen.latency(port, "on") end
  pktgen.clr()
  pktgen.start(port)
  pktgen.delay(math.floor(settings.seconds * 1000))
  pktgen.stop(port)
  pktgen.delay(math.floor(settings.settle * 1000))
  local receiver = settings.tasks[1]
  local stats = pktgen.pktStats(tostring(receiver))
  local latency = (stats[receiver] or stats[tostring(receiver)] or stats).latency or {}
  if not pcall(pktgen.latency, port, "disable") then pktgen.latency(port, "off") end
  traffic.result(settings, {
    name = string.format("pktgen/latency/%d/load:%g", size, share), unit = "us",
    value = latency.avg_us, spread = latency.min_us and {latency.min_us, latency.max_us} or nil, samples = latency.num_pkts,
    rate_percent = full * share,
    refused = latency.avg_us == nil and "this pktgen reports no latency in pktStats" or nil})
end
pktgen.quit()
