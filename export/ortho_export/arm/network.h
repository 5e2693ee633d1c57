// A network that the bench runs: features of one utterance in, anything out, on one thread.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

class Network {
 public:
  virtual ~Network() = default;
  // Numbers per frame.
  virtual int64_t bins() const = 0;
  // Runs on (1, frames, bins).
  virtual void run(std::vector<float>& features, int64_t frames) = 0;
};

// Of a .pte file, in ExecuTorch.
std::unique_ptr<Network> load_program(const std::string& path);
// Of an .onnx file, in ONNX Runtime.
std::unique_ptr<Network> load_model(const std::string& path);
