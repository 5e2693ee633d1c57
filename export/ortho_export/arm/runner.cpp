// Runs an ExecuTorch program on files of features, times it, and writes what it returns.
//
//   runner PROGRAM THREADS CORE RUNS (INPUT OUTPUT)...
//
// PROGRAM  a .pte file whose method `forward` takes one float32 tensor; its second dimension is the
//          length, which the size of the input file decides
// THREADS  at least 1
// CORE     the processor to stay on, -1 for any
// RUNS     inferences for each input
// INPUT    raw little-endian float32; OUTPUT gets the same of the last inference
//
// One line of JSON on standard output tells what was observed, one line on standard error and exit
// status 1 what went wrong. Before and after each inference stands a call of getppid, which no
// library makes, so that an emulator can see where an inference begins and ends.

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "program.h"

namespace {

struct Times {
  std::vector<int32_t> shape;
  std::vector<double> milliseconds;
};

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

void mark() { syscall(SYS_getppid); }

std::vector<float> read_floats(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) fail("cannot read " + path);
  const std::streamoff bytes = file.tellg();
  if (bytes % sizeof(float) != 0) fail(path + " holds no whole float32 numbers");
  std::vector<float> values(bytes / sizeof(float));
  file.seekg(0);
  if (!file.read(reinterpret_cast<char*>(values.data()), bytes)) fail("cannot read " + path);
  return values;
}

void write_floats(const std::string& path, const float* values, size_t count) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values), count * sizeof(float));
  file.close();
  if (!file) fail("cannot write " + path);
}

Times run(Module& module, std::vector<int32_t> sizes, long runs, const std::string& input,
          const std::string& output) {
  auto values = read_floats(input);
  size_t step = 1;
  for (size_t index = 0; index < sizes.size(); ++index) step *= index == 1 ? 1 : sizes[index];
  const size_t length = values.size() / step;
  if (length == 0 || values.size() % step != 0 || length > static_cast<size_t>(sizes[1])) {
    fail(input + " holds " + std::to_string(values.size()) + " numbers; the program takes 1 to " +
         std::to_string(sizes[1]) + " times " + std::to_string(step));
  }
  sizes[1] = static_cast<int32_t>(length);
  auto tensor = executorch::extension::from_blob(values.data(), sizes);
  Times times;
  for (long index = 0; index < runs; ++index) {
    mark();
    const auto start = std::chrono::steady_clock::now();
    auto result = module.forward(tensor);
    times.milliseconds.push_back(milliseconds_since(start));
    mark();
    check(result.error(), "running " + input);
    if (index + 1 == runs) {
      const auto& found = result->at(0).toTensor();
      if (found.scalar_type() != executorch::aten::ScalarType::Float) {
        fail("the program does not return float32");
      }
      times.shape.assign(found.sizes().begin(), found.sizes().end());
      write_floats(output, found.const_data_ptr<float>(), found.numel());
    }
  }
  return times;
}

template <typename Number>
std::string list(const std::vector<Number>& numbers) {
  std::ostringstream text;
  text << '[';
  for (size_t index = 0; index < numbers.size(); ++index) {
    text << (index ? "," : "") << numbers[index];
  }
  text << ']';
  return text.str();
}

std::string describe(const Times& times) {
  auto sorted = times.milliseconds;
  std::sort(sorted.begin(), sorted.end());
  const size_t half = sorted.size() / 2;
  const double median =
      sorted.size() % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  std::ostringstream text;
  text << "{\"shape\":" << list(times.shape) << ",\"min_ms\":" << sorted.front()
       << ",\"median_ms\":" << median << ",\"ms\":" << list(times.milliseconds) << '}';
  return text.str();
}

void measure(int argc, char** argv) {
  if (argc < 7 || argc % 2 == 0) {
    fail("usage: runner PROGRAM THREADS CORE RUNS (INPUT OUTPUT)...");
  }
  const long threads = whole_number(argv[2], "THREADS", 1);
  const long core = whole_number(argv[3], "CORE", -1);
  const long runs = whole_number(argv[4], "RUNS", 1);
  if (core >= 0) stay_on(core);
  use_threads(static_cast<uint32_t>(threads));

  const auto start = std::chrono::steady_clock::now();
  Module module(argv[1], Module::LoadMode::Mmap);
  load(module, argv[1]);
  const double load_ms = milliseconds_since(start);

  auto meta = module.method_meta("forward");
  check(meta.error(), "reading what the program takes");
  int64_t planned = 0;
  for (size_t index = 0; index < meta->num_memory_planned_buffers(); ++index) {
    planned += meta->memory_planned_buffer_size(index).get();
  }
  std::string inputs;
  for (int index = 5; index < argc; index += 2) {
    const auto times = run(module, input_sizes(*meta), runs, argv[index], argv[index + 1]);
    inputs += (index > 5 ? "," : "") + describe(times);
  }
  std::printf(
      "{\"threads\":%ld,\"load_ms\":%g,\"planned_bytes\":%lld,\"peak_kb\":%ld,\"inputs\":[%s]}\n",
      threads, load_ms, static_cast<long long>(planned), kilobytes("VmHWM:"), inputs.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    measure(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "runner: %s\n", error.what());
    return 1;
  }
  return 0;
}
