// Times networks in turns, or measures what one adds to the memory of a process.
//
//   bench time CORE SECONDS FRAMES NETWORK...
//   bench memory CORE FRAMES WARM_UP NETWORK
//
// CORE     the processor to stay on, -1 for any
// SECONDS  of the timing at most; it ends sooner when the noise is small
// FRAMES   lengths of the features, with commas between them
// NETWORK  a .pte file for ExecuTorch, or an .onnx file for ONNX Runtime; one thread runs it
// WARM_UP  one that runs first, so that the libraries' own memory counts as being there
//
// Each line on standard output is JSON: one after each round, then the result. One line on standard
// error and exit status 1 tell what went wrong. The procedure is that of
// ortho_edge/devices/timing.py and memory.py.

#include <malloc.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "common.h"
#include "network.h"

namespace {

constexpr char USAGE[] =
    "usage: bench time CORE SECONDS FRAMES NETWORK... | bench memory CORE FRAMES WARM_UP NETWORK";
constexpr int WARM_UP_CALLS = 2, CALLS_PER_TURN = 3, MIN_ROUNDS = 8;
constexpr double QUIET_SPREAD_PERCENT = 1.0;

double milliseconds(clockid_t clock) {
  timespec now;
  if (clock_gettime(clock, &now) != 0) fail("this system has no clock of a thread");
  return 1e3 * now.tv_sec + 1e-6 * now.tv_nsec;
}

std::unique_ptr<Network> load_network(const std::string& path) {
  const size_t dot = path.rfind('.');
  const std::string suffix = dot == std::string::npos ? "" : path.substr(dot);
  if (suffix == ".pte") return load_program(path);
  if (suffix == ".onnx") return load_model(path);
  fail(path + " is neither a .pte nor an .onnx file");
}

// Noise, for zeros may run faster.
std::vector<float> noise(int64_t count) {
  std::mt19937 generator(0);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

std::vector<int64_t> lengths(const std::string& text) {
  std::vector<int64_t> found;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    found.push_back(whole_number(part.c_str(), "FRAMES", 1));
  }
  if (found.empty()) fail("FRAMES names no length");
  return found;
}

// Times of even rounds apart from those of odd ones.
struct Times {
  std::vector<double> half[2];

  double least(int which) const {
    return *std::min_element(half[which].begin(), half[which].end());
  }
  double spread_percent() const {
    return 100 * std::abs(least(0) - least(1)) / std::min(least(0), least(1));
  }
  double median() const {
    auto all = half[0];
    all.insert(all.end(), half[1].begin(), half[1].end());
    std::sort(all.begin(), all.end());
    const size_t middle = all.size() / 2;
    return all.size() % 2 ? all[middle] : (all[middle - 1] + all[middle]) / 2;
  }
};

struct Call {
  Network* network;
  int64_t frames;
  std::vector<float> features;
  Times cpu, wall;

  void take_turn(int round) {
    for (int index = 0; index < CALLS_PER_TURN; ++index) {
      const double wall_start = milliseconds(CLOCK_MONOTONIC);
      const double cpu_start = milliseconds(CLOCK_THREAD_CPUTIME_ID);
      network->run(features, frames);
      cpu.half[round % 2].push_back(milliseconds(CLOCK_THREAD_CPUTIME_ID) - cpu_start);
      wall.half[round % 2].push_back(milliseconds(CLOCK_MONOTONIC) - wall_start);
    }
  }
};

// Rounds until the noise of every call is small or the time is up. None stops before the others: of
// many calls some agree with themselves by chance, too early and too high.
int take_turns(std::vector<Call>& calls, double limit_seconds) {
  for (auto& call : calls) {
    for (int index = 0; index < WARM_UP_CALLS; ++index) {
      call.network->run(call.features, call.frames);
    }
  }
  const double start = milliseconds(CLOCK_MONOTONIC);
  bool quiet = calls.empty();
  int rounds = 0;
  for (double seconds = 0; !quiet && (rounds < 2 || seconds < limit_seconds);) {
    for (auto& call : calls) call.take_turn(rounds);
    ++rounds;
    seconds = (milliseconds(CLOCK_MONOTONIC) - start) / 1e3;
    std::printf("{\"round\":%d,\"seconds\":%.3f}\n", rounds, seconds);
    // Nobody listens any more.
    if (std::fflush(stdout) != 0) fail("cannot write");
    if (rounds < MIN_ROUNDS || rounds % 2 != 0) continue;
    quiet = std::all_of(calls.begin(), calls.end(), [](const Call& call) {
      return call.cpu.spread_percent() < QUIET_SPREAD_PERCENT;
    });
  }
  return rounds;
}

void time_networks(int argc, char** argv) {
  const double limit_seconds = whole_number(argv[3], "SECONDS", 0);
  const auto frames = lengths(argv[4]);
  std::vector<std::unique_ptr<Network>> networks;
  std::vector<Call> calls;
  for (int index = 5; index < argc; ++index) {
    networks.push_back(load_network(argv[index]));
    for (const int64_t length : frames) {
      auto* network = networks.back().get();
      calls.push_back({network, length, noise(length * network->bins()), {}, {}});
    }
  }
  const int rounds = take_turns(calls, limit_seconds);
  std::printf("{\"rounds\":%d,\"calls\":[", rounds);
  for (size_t index = 0; index < calls.size(); ++index) {
    const auto& call = calls[index];
    std::printf("%s{\"network\":%zu,\"frames\":%lld,\"cpu_ms\":[%.9g,%.9g],\"median_cpu_ms\":%.9g,"
                "\"wall_ms\":[%.9g,%.9g]}",
                index ? "," : "", index / frames.size(), static_cast<long long>(call.frames),
                call.cpu.least(0), call.cpu.least(1), call.cpu.median(), call.wall.least(0),
                call.wall.least(1));
  }
  std::printf("]}\n");
}

void measure_memory(char** argv) {
  const auto frames = lengths(argv[3]);
  if (frames.size() != 1) fail("FRAMES must be one length");
  const auto run = [&](Network& network) {
    auto features = noise(frames[0] * network.bins());
    network.run(features, frames[0]);
  };
  const auto warm_up = load_network(argv[4]);
  auto features = noise(100 * warm_up->bins());
  warm_up->run(features, 100);
  // What is free would be used again, and the network seem to need less.
  malloc_trim(0);
  std::ofstream reset("/proc/self/clear_refs");
  reset << "5" << std::flush;
  if (!reset) fail("cannot reset the peak memory of this process");
  const long before = kilobytes("VmRSS:");
  run(*load_network(argv[5]));
  const long peak = kilobytes("VmHWM:");
  if (before == 0 || peak == 0) fail("this system does not tell the memory of a process");
  std::printf("{\"peak_kb\":%ld}\n", peak - before);
}

void measure(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "--help") {
    std::puts(USAGE);
    return;
  }
  if ((what != "time" || argc < 6) && (what != "memory" || argc != 6)) fail(USAGE);
  const long core = whole_number(argv[2], "CORE", -1);
  if (core >= 0) stay_on(core);
  if (what == "time") {
    time_networks(argc, argv);
  } else {
    measure_memory(argv);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    measure(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
