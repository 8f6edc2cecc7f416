// Shows ThreadSanitizer the locks of Swift's Synchronization module; Tests/sanitize.sh loads it before the tests.
//
// A Mutex without contention is locked and unlocked by atomic operations inside the tested code, which ThreadSanitizer
// sees. One with contention goes through two functions of libswiftSynchronization, which is not instrumented: without
// this, every Mutex that two threads want at the same time would be reported as a race. The names are the mangled ones
// of `_MutexHandle._lockSlow(_:)` and `_MutexHandle._unlockSlow()` of Swift 6 on Linux; self comes in the register of
// the Swift calling convention.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>

#define LOCK "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define UNLOCK "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"
#define SWIFT __attribute__((swiftcall))
#define SELF __attribute__((swift_context))

typedef SWIFT void lock_function(uint32_t thread, SELF void *self);
typedef SWIFT void unlock_function(SELF void *self);

// Of ThreadSanitizer's runtime, in the tests' executable: what happened before a release happened before the acquire.
extern void __tsan_acquire(void *address) __attribute__((weak));
extern void __tsan_release(void *address) __attribute__((weak));

SWIFT void lock_slow(uint32_t thread, SELF void *self) __asm__(LOCK);
SWIFT void lock_slow(uint32_t thread, SELF void *self) {
  lock_function *next = (lock_function *)dlsym(RTLD_NEXT, LOCK);
  next(thread, self);
  if (__tsan_acquire) __tsan_acquire(self);
}

SWIFT void unlock_slow(SELF void *self) __asm__(UNLOCK);
SWIFT void unlock_slow(SELF void *self) {
  unlock_function *next = (unlock_function *)dlsym(RTLD_NEXT, UNLOCK);
  if (__tsan_release) __tsan_release(self);
  next(self);
}
