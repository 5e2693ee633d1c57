// ONNX models for the bench.
//
// ONNX Runtime's wheel has its library and no header of it. The library's interface is a table of
// functions whose places never change, so that these few places are all that must be known.

#include <dlfcn.h>

#include "common.h"
#include "network.h"

namespace {

constexpr char LIBRARY[] = "libonnxruntime.so.1";
constexpr uint32_t TABLE_VERSION = 1;
constexpr int ONLY_ERRORS = 3, ARENA = 1, ORDINARY_MEMORY = 0, FLOAT32 = 1, INT64 = 7;

enum Place {
  ERROR_MESSAGE = 2,
  CREATE_ENVIRONMENT = 3,
  CREATE_SESSION = 7,
  RUN = 9,
  CREATE_OPTIONS = 10,
  SET_THREADS = 24,
  SET_THREADS_BETWEEN = 25,
  NUM_INPUTS = 30,
  NUM_OUTPUTS = 31,
  INPUT_TYPE = 33,
  INPUT_NAME = 36,
  OUTPUT_NAME = 37,
  CREATE_TENSOR = 49,
  TENSOR_OF_TYPE = 55,
  NUM_DIMENSIONS = 61,
  DIMENSIONS = 62,
  CREATE_MEMORY = 69,
  DEFAULT_ALLOCATOR = 78,
  RELEASE_SESSION = 95,
  RELEASE_VALUE = 96,
};

// Never unloaded; what it creates for all networks stays as long as the process.
class Library {
 public:
  Library() {
    struct Base {
      void* const* (*table)(uint32_t version);
      const char* (*version)();
    };
    // Without it the library reports to its makers what it runs, and leaves a file behind.
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    void* library = dlopen(LIBRARY, RTLD_NOW);
    if (library == nullptr) fail(dlerror());
    const auto base = reinterpret_cast<const Base* (*)()>(dlsym(library, "OrtGetApiBase"));
    if (base == nullptr) fail(dlerror());
    table_ = base()->table(TABLE_VERSION);
    if (table_ == nullptr) fail(std::string(LIBRARY) + " lacks the first interface");
    call(CREATE_ENVIRONMENT, ONLY_ERRORS, "bench", &environment);
    call(CREATE_OPTIONS, &options);
    call(SET_THREADS, options, 1);
    call(SET_THREADS_BETWEEN, options, 1);
    call(CREATE_MEMORY, ARENA, ORDINARY_MEMORY, &memory);
    call(DEFAULT_ALLOCATOR, &allocator);
  }

  // Calls what returns a status; null is success.
  template <typename... Arguments>
  void call(Place place, Arguments... arguments) const {
    void* status = reinterpret_cast<void* (*)(Arguments...)>(table_[place])(arguments...);
    if (status != nullptr) {
      fail(reinterpret_cast<const char* (*)(void*)>(table_[ERROR_MESSAGE])(status));
    }
  }

  void release(Place place, void* what) const {
    reinterpret_cast<void (*)(void*)>(table_[place])(what);
  }

  void *environment = nullptr, *options = nullptr, *memory = nullptr, *allocator = nullptr;

 private:
  void* const* table_;
};

const Library& library() {
  static const Library one;
  return one;
}

class ModelNetwork : public Network {
 public:
  explicit ModelNetwork(const std::string& path) {
    library().call(CREATE_SESSION, library().environment, path.c_str(), library().options,
                   &session_);
    input_names_ = names(NUM_INPUTS, INPUT_NAME);
    output_names_ = names(NUM_OUTPUTS, OUTPUT_NAME);
    void *type = nullptr, *tensor = nullptr;
    library().call(INPUT_TYPE, session_, size_t{0}, &type);
    library().call(TENSOR_OF_TYPE, type, &tensor);
    size_t dimensions = 0;
    library().call(NUM_DIMENSIONS, tensor, &dimensions);
    if (input_names_.size() != 2 || dimensions != 3) fail(path + " does not take features");
    std::vector<int64_t> sizes(dimensions);
    library().call(DIMENSIONS, tensor, sizes.data(), dimensions);
    bins_ = sizes[2];
  }

  ~ModelNetwork() override { library().release(RELEASE_SESSION, session_); }

  int64_t bins() const override { return bins_; }

  void run(std::vector<float>& features, int64_t frames) override {
    const int64_t shape[] = {1, frames, bins_};
    const int64_t one[] = {1};
    void* inputs[] = {nullptr, nullptr};
    library().call(CREATE_TENSOR, library().memory, static_cast<void*>(features.data()),
                   features.size() * sizeof(float), shape, size_t{3}, FLOAT32, &inputs[0]);
    library().call(CREATE_TENSOR, library().memory, static_cast<void*>(&frames), sizeof frames,
                   one, size_t{1}, INT64, &inputs[1]);
    std::vector<void*> outputs(output_names_.size());
    void* no_options = nullptr;
    library().call(RUN, session_, no_options, input_names_.data(), inputs, input_names_.size(),
                   output_names_.data(), output_names_.size(), outputs.data());
    for (void* value : inputs) library().release(RELEASE_VALUE, value);
    for (void* value : outputs) library().release(RELEASE_VALUE, value);
  }

 private:
  std::vector<const char*> names(Place number, Place name) const {
    size_t count = 0;
    library().call(number, session_, &count);
    std::vector<const char*> all(count);
    for (size_t index = 0; index < count; ++index) {
      library().call(name, session_, index, library().allocator, &all[index]);
    }
    return all;
  }

  void* session_ = nullptr;
  int64_t bins_ = 0;
  std::vector<const char*> input_names_, output_names_;
};

}  // namespace

std::unique_ptr<Network> load_model(const std::string& path) {
  return std::make_unique<ModelNetwork>(path);
}
