// A library that registers its plugins when it is loaded: for Triton, trtexec --staticPlugins and
// ctypes. It must not have entry points as well, or TensorRT registers everything twice.
#include "plugin.h"

namespace toolkit {

nvinfer1::ILogger* logger() noexcept { return getLogger(); }

namespace {

struct Registration {
    Registration() noexcept {
        nvinfer1::IPluginRegistry* registry = getPluginRegistry();
        for (int i = 0; registry && i < kCreators; ++i)
            registry->registerCreator(*creators()[i], "toolkit");
    }
};

Registration const registration;

}  // namespace
}  // namespace toolkit
