// What the programs of this folder share.

#pragma once

#include <sched.h>

#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>

[[noreturn]] inline void fail(const std::string& message) { throw std::runtime_error(message); }

inline long whole_number(const char* text, const char* name, long least) {
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  if (end == text || *end != '\0' || value < least) {
    fail(std::string(name) + " must be a whole number of at least " + std::to_string(least) +
         ", not " + text);
  }
  return value;
}

inline void stay_on(long core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  if (core >= CPU_SETSIZE || sched_setaffinity(0, sizeof set, &set) != 0) {
    fail("cannot run on core " + std::to_string(core));
  }
}

// Memory of this process by its key in /proc/self/status; getrusage would count what the process
// was before it became this program.
inline long kilobytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(key, 0) == 0) return std::strtol(line.c_str() + key.size(), nullptr, 10);
  }
  return 0;
}
