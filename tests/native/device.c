/* SPDX-License-Identifier: Apache-2.0 */
#include "native/device.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BLOCKS = 256 };

/* Writes where it is told. */
static const char faulty[] = ".version 7.0\n"
                             ".target sm_80\n"
                             ".address_size 64\n"
                             ".visible .entry faulty(.param .b64 at)\n"
                             "{\n"
                             "    .reg .b64 %to;\n"
                             "    .reg .b32 %value;\n"
                             "    ld.param.b64 %to, [at];\n"
                             "    mov.b32 %value, 1;\n"
                             "    st.global.b32 [%to], %value;\n"
                             "    ret;\n"
                             "}\n";
enum { NOWHERE = 64 };

/* The driver's functions, as cuda.h has them. */
static struct {
    int (*init)(unsigned flags);
    int (*get_device)(int *device, int index);
    int (*retain)(void **context, int device);
    int (*push)(void *context);
    int (*pop)(void **context);
    int (*load)(void **module, const void *image);
    int (*get_function)(void **function, void *module, const char *name);
    int (*launch)(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                  unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                  void *stream, void **parameters, void **extra);
    int (*synchronize)(void);
    int (*allocate)(unsigned long long *to, size_t bytes);
    int (*release)(unsigned long long memory);
    int (*info)(size_t *available, size_t *total);
} driver;

static void *context, *function; /* the device's, and the kernel in it */
static unsigned long long blocks[MOST_BLOCKS];
static int num_blocks;

static bool find(void *library, const char *name, void *to) {
    void *symbol = dlsym(library, name);
    memcpy(to, &symbol, sizeof symbol); /* C has no cast between the two kinds of pointer */
    return symbol != NULL;
}

static void require(int code, const char *what) {
    if (code == 0)
        return;
    fprintf(stderr, "device: %s: %d\n", what, code);
    exit(1);
}

static bool find_driver(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    return library && find(library, "cuInit", &driver.init) &&
           find(library, "cuDeviceGet", &driver.get_device) &&
           find(library, "cuDevicePrimaryCtxRetain", &driver.retain) &&
           find(library, "cuCtxPushCurrent_v2", &driver.push) &&
           find(library, "cuCtxPopCurrent_v2", &driver.pop) &&
           find(library, "cuModuleLoadData", &driver.load) &&
           find(library, "cuModuleGetFunction", &driver.get_function) &&
           find(library, "cuLaunchKernel", &driver.launch) &&
           find(library, "cuCtxSynchronize", &driver.synchronize) &&
           find(library, "cuMemAlloc_v2", &driver.allocate) &&
           find(library, "cuMemFree_v2", &driver.release) &&
           find(library, "cuMemGetInfo_v2", &driver.info);
}

/* The thread's device is the one that was opened, until it leaves. */
static void enter(void) {
    require(driver.push(context), "cuCtxPushCurrent");
}

static void leave(void) {
    void *popped;
    (void)driver.pop(&popped); /* what it may say is of a kernel before it */
}

/* What comes of a kernel that writes to `to`. */
static int write_to(unsigned long long to) {
    void *parameters[] = {&to};
    require(driver.launch(function, 1, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL), "cuLaunchKernel");
    return driver.synchronize();
}

bool device_open(int index) {
    void *module;
    int device;
    if (!find_driver() || driver.init(0) != 0 || driver.get_device(&device, index) != 0 ||
        driver.retain(&context, device) != 0)
        return false;
    enter();
    require(driver.load(&module, faulty), "cuModuleLoadData");
    require(driver.get_function(&function, module, "faulty"), "cuModuleGetFunction");
    unsigned long long memory; /* loads the kernel: later that might wait for others */
    require(driver.allocate(&memory, sizeof memory), "cuMemAlloc");
    require(write_to(memory), "a kernel");
    require(driver.release(memory), "cuMemFree");
    leave();
    return true;
}

size_t device_exhaust(size_t bytes) {
    size_t available = 0, total;
    enter();
    for (size_t piece = (size_t)64 << 30; piece >= (size_t)2 << 20; piece /= 2)
        for (;;) {
            require(driver.info(&available, &total), "cuMemGetInfo");
            if (available < bytes + piece || num_blocks == MOST_BLOCKS ||
                driver.allocate(&blocks[num_blocks], piece) != 0)
                break;
            num_blocks++;
        }
    leave();
    return available;
}

void device_relieve(void) {
    enter();
    while (num_blocks > 0)
        require(driver.release(blocks[--num_blocks]), "cuMemFree");
    leave();
}

void device_break(void) {
    enter();
    if (write_to(NOWHERE) == 0)
        require(1, "a faulty kernel that ends well");
    leave();
}
