// SPDX-License-Identifier: BSD-3-Clause
// Precompiled for the folders that speak JSON.

#include <nlohmann/json.hpp>
