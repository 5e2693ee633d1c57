// ExecuTorch programs for the bench.

#include "network.h"
#include "program.h"

namespace {

class ProgramNetwork : public Network {
 public:
  explicit ProgramNetwork(const std::string& path)
      : path_(path), module_(path, Module::LoadMode::Mmap) {
    // Does nothing from the second network on.
    use_threads(1);
    load(module_, path);
    auto meta = module_.method_meta("forward");
    check(meta.error(), "reading what the program takes");
    sizes_ = input_sizes(*meta);
    if (sizes_.size() != 3) fail(path + " does not take features");
  }

  int64_t bins() const override { return sizes_[2]; }

  void run(std::vector<float>& features, int64_t frames) override {
    if (frames > sizes_[1]) {
      fail(path_ + " takes at most " + std::to_string(sizes_[1]) + " frames");
    }
    auto tensor = executorch::extension::from_blob(
        features.data(), {1, static_cast<int32_t>(frames), sizes_[2]});
    check(module_.forward(tensor).error(), "running " + path_);
  }

 private:
  std::string path_;
  Module module_;
  std::vector<int32_t> sizes_;
};

}  // namespace

std::unique_ptr<Network> load_program(const std::string& path) {
  return std::make_unique<ProgramNetwork>(path);
}
