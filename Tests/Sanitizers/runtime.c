// Shows ThreadSanitizer how Swift's runtime orders threads; Tests/sanitize.sh loads it before the tests.
//
// The runtime's libraries are not instrumented. For tasks and actors the runtime itself notifies ThreadSanitizer of the
// order that it makes, but not in three places. Without this, correct code is reported there:
//
// * A Mutex (module Synchronization) that two threads want at the same time is locked and unlocked by two functions of
//   libswiftSynchronization. (Without contention, atomic operations in the tested code do it, which are seen.)
// * A continuation that is resumed before the task waits for it: swift_continuation_await then continues at once and,
//   unlike a task that is woken, without notifying ThreadSanitizer. What the resuming thread wrote before is ordered.
// * Reference counts. Copy on write reads a value on one thread, gives the reference up there, and then another thread,
//   now the only owner, writes in place. Giving up is a release, finding out that one is the only owner an acquire.
//
// Two small windows stay, in which a report in error is possible: a continuation resumed between the acquire here and
// the runtime's own look at it, and two threads that give up the last two references at the same time.
//
// Mangled names and signatures are those of Swift 6 on Linux; self comes in the register of the Swift calling
// convention.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SWIFT __attribute__((swiftcall))
#define ASYNC __attribute__((swiftasynccall))
#define SELF __attribute__((swift_context))

// Of ThreadSanitizer's runtime, in the tests' executable: what happened before a release happened before the acquire.
extern void __tsan_acquire(void *address) __attribute__((weak));
extern void __tsan_release(void *address) __attribute__((weak));

// Mutex

#define LOCK "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define UNLOCK "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"

typedef SWIFT void lock_function(uint32_t thread, SELF void *self);
typedef SWIFT void unlock_function(SELF void *self);

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

// Continuations. Resuming one releases the task.

typedef ASYNC void await_function(void *context);
typedef SWIFT void *current_task_function(void);

static await_function *await_next;
static current_task_function *current_task;

ASYNC void await_continuation(void *context) __asm__("swift_continuation_await");
ASYNC void await_continuation(void *context) {
  if (__tsan_acquire) __tsan_acquire(current_task());
  return await_next(context);
}

// References

typedef bool is_unique_function(const void *object);
typedef size_t count_function(void *object);
typedef void release_function(void *object);
typedef void release_n_function(void *object, uint32_t n);

static count_function *reference_count;

// The runtime's `name`, looked up once: libraries' constructors may ask before the one below has run.
#define NEXT(type, variable, name) \
  static type *variable;           \
  if (!variable) variable = (type *)dlsym(RTLD_NEXT, name)

// Before `n` references to `object` are given up; null and addresses from 2^63 are no objects. The last owner destroys
// it.
static void give_up(void *object, uint32_t n) {
  if ((intptr_t)object <= 0 || !__tsan_acquire || !reference_count) return;
  if (reference_count(object) <= n) __tsan_acquire(object);
  __tsan_release(object);
}

// Of a bridge object, such as the storage of a text, some bits of the address are flags.
static void *without_flags(void *object) {
  return (intptr_t)object <= 0 ? NULL : (void *)((uintptr_t)object & 0x0ffffffffffffff8);
}

void release(void *object) __asm__("swift_release");
void release(void *object) {
  NEXT(release_function, next, "swift_release");
  give_up(object, 1);
  next(object);
}

void release_n(void *object, uint32_t n) __asm__("swift_release_n");
void release_n(void *object, uint32_t n) {
  NEXT(release_n_function, next, "swift_release_n");
  give_up(object, n);
  next(object, n);
}

void bridge_release(void *object) __asm__("swift_bridgeObjectRelease");
void bridge_release(void *object) {
  NEXT(release_function, next, "swift_bridgeObjectRelease");
  give_up(without_flags(object), 1);
  next(object);
}

void bridge_release_n(void *object, uint32_t n) __asm__("swift_bridgeObjectRelease_n");
void bridge_release_n(void *object, uint32_t n) {
  NEXT(release_n_function, next, "swift_bridgeObjectRelease_n");
  give_up(without_flags(object), n);
  next(object, n);
}

bool is_unique(const void *object) __asm__("swift_isUniquelyReferenced_nonNull_native");
bool is_unique(const void *object) {
  NEXT(is_unique_function, next, "swift_isUniquelyReferenced_nonNull_native");
  bool unique = next(object);
  if (unique && __tsan_acquire) __tsan_acquire((void *)object);
  return unique;
}

bool is_unique_or_null(const void *object) __asm__("swift_isUniquelyReferenced_native");
bool is_unique_or_null(const void *object) {
  NEXT(is_unique_function, next, "swift_isUniquelyReferenced_native");
  bool unique = next(object);
  if (unique && __tsan_acquire) __tsan_acquire((void *)object);
  return unique;
}

// Looks up what is called often. Programs that are not written in Swift and inherit the variable that loads this
// have no such functions, and call none.
__attribute__((constructor)) static void find_functions(void) {
  await_next = (await_function *)dlsym(RTLD_NEXT, "swift_continuation_await");
  current_task = (current_task_function *)dlsym(RTLD_NEXT, "swift_task_getCurrent");
  reference_count = (count_function *)dlsym(RTLD_NEXT, "swift_retainCount");
}
