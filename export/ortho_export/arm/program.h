// What the programs of this folder share that run ExecuTorch.

#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include "common.h"

// The wheel exports the thread pool and ships no header of it.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t num_threads);
  size_t get_thread_count() const;
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

using executorch::extension::Module;
using executorch::runtime::Error;

inline void check(Error error, const std::string& what) {
  if (error != Error::Ok) {
    char code[16];
    std::snprintf(code, sizeof code, "0x%x", static_cast<unsigned>(error));
    fail(what + " failed with ExecuTorch error " + code);
  }
}

inline void use_threads(uint32_t threads) {
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool == nullptr || !pool->_unsafe_reset_threadpool(threads) ||
      pool->get_thread_count() != threads) {
    fail("cannot use " + std::to_string(threads) + " threads");
  }
}

inline void load(Module& module, const std::string& path) {
  check(module.load(executorch::runtime::Program::Verification::InternalConsistency),
        "reading the program " + path);
  check(module.load_forward(), "loading " + path);
}

// The sizes of the program's input, the longest that it takes.
inline std::vector<int32_t> input_sizes(const executorch::runtime::MethodMeta& meta) {
  auto input = meta.input_tensor_meta(0);
  check(input.error(), "reading what the program takes");
  if (meta.num_inputs() != 1 || input->scalar_type() != executorch::aten::ScalarType::Float) {
    fail("the program does not take one float32 tensor");
  }
  const auto sizes = input->sizes();
  if (sizes.size() < 2) fail("the program's input has no second dimension");
  return {sizes.begin(), sizes.end()};
}
