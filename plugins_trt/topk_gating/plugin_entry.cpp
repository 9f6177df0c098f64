// A library that TensorRT asks for its plugins: for IPluginRegistry::loadLibrary, trtexec
// --dynamicPlugins and engines that carry their plugin library (plugins_to_serialize).
#include <atomic>

#include "plugin.h"

namespace toolkit {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> finder{nullptr};

}  // namespace

nvinfer1::ILogger* logger() noexcept {
    nvinfer1::ILoggerFinder* found = finder.load();
    return found ? found->findLogger() : nullptr;
}

}  // namespace toolkit

#if defined(_WIN32)
#define TOOLKIT_EXPORT extern "C" __declspec(dllexport)
#else
#define TOOLKIT_EXPORT extern "C" __attribute__((visibility("default")))
#endif

TOOLKIT_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
    toolkit::finder.store(finder);
}

TOOLKIT_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
    count = toolkit::kCreators;
    return toolkit::creators();
}
