#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ckernels.h"

// How long a thread looks for what comes next before it sleeps: waking one takes tens of microseconds, and most operations of a
// network follow one another within less.
#define PATIENCE_NS 50000

// What different threads write lies in different lines, and in different pairs of them, which are fetched together.
#define LINE 128

// The gate: the number of the job, whether it is open, and how many workers are inside. Workers enter and leave by one atomic
// operation each, so that many of them do not queue for a lock at the beginning and the end of every operation.
#define INSIDE 0xffffULL
#define OPEN (1ULL << 16)
#define JOB_SHIFT 17

// Lock order: callers, then state. `body`, `context` and `count` belong to the caller while no worker is inside and the gate is
// closed. A worker that looks too late finds the gate closed and stays outside, so the caller never waits for a thread that has
// nothing to do. `state` guards sleeping only: who is about to sleep says so and looks once more, who changes the gate looks for
// sleepers afterwards, both in the one order of sequentially consistent operations, so that one of the two sees the other.
struct ck_pool {
  void (*body)(void *, size_t);
  void *context;
  size_t count;
  int workers;
  int is_patient;  // every thread can have a processor of its own
  _Alignas(LINE) atomic_size_t next;
  _Alignas(LINE) atomic_ullong gate;
  _Alignas(LINE) atomic_int sleepers;
  atomic_int caller_sleeps;
  atomic_int ending;
  pthread_mutex_t callers;
  pthread_mutex_t state;
  pthread_cond_t opened, left;
  pthread_t threads[];
};

static _Thread_local int inside_body;

static void take_indices(ck_pool *pool, void (*body)(void *, size_t), void *context, size_t count) {
  inside_body = 1;
  for (;;) {
    size_t index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
    if (index >= count) break;
    body(context, index);
  }
  inside_body = 0;
}

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static inline long long nanoseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

// Looks for a while whether a new job is open, or all workers have left the current one.
#define LOOK_UNTIL(pool, condition)                                      \
  if ((pool)->is_patient) {                                              \
    const long long end = nanoseconds() + PATIENCE_NS;                   \
    while (!(condition) && nanoseconds() < end)                          \
      for (int i = 0; i < 16 && !(condition); i++) relax();              \
  }

static inline unsigned long long look(ck_pool *pool) { return atomic_load_explicit(&pool->gate, memory_order_relaxed); }

static inline int is_new(unsigned long long gate, unsigned long long seen) {
  return (gate & OPEN) && gate >> JOB_SHIFT != seen;
}

// Takes part in a job after number `seen`, if one is open.
static int enter(ck_pool *pool, unsigned long long *seen) {
  unsigned long long gate = atomic_load(&pool->gate);
  while (is_new(gate, *seen)) {
    if (!atomic_compare_exchange_weak(&pool->gate, &gate, gate + 1)) continue;
    *seen = gate >> JOB_SHIFT;
    return 1;
  }
  return 0;
}

static void leave(ck_pool *pool) {
  unsigned long long gate = atomic_fetch_sub(&pool->gate, 1) - 1;
  if ((gate & (INSIDE | OPEN)) == 0 && atomic_load(&pool->caller_sleeps)) {
    pthread_mutex_lock(&pool->state);
    pthread_cond_signal(&pool->left);
    pthread_mutex_unlock(&pool->state);
  }
}

// Sleeps until a job after number `seen` is open; 0: the pool ends.
static int sleep_until_opened(ck_pool *pool, unsigned long long seen) {
  pthread_mutex_lock(&pool->state);
  atomic_fetch_add(&pool->sleepers, 1);
  while (!atomic_load(&pool->ending) && !is_new(atomic_load(&pool->gate), seen)) pthread_cond_wait(&pool->opened, &pool->state);
  atomic_fetch_sub(&pool->sleepers, 1);
  int is_ending = atomic_load(&pool->ending);
  pthread_mutex_unlock(&pool->state);
  return !is_ending;
}

// Wakes as many sleepers as have work: `count` indices, of which the caller takes one itself.
static void wake(ck_pool *pool, size_t count) {
  if (atomic_load(&pool->sleepers) == 0) return;
  pthread_mutex_lock(&pool->state);
  if (count > (size_t)pool->workers) {
    pthread_cond_broadcast(&pool->opened);
  } else {
    for (size_t i = 1; i < count; i++) pthread_cond_signal(&pool->opened);
  }
  pthread_mutex_unlock(&pool->state);
}

static void *worker_main(void *argument) {
  ck_pool *pool = argument;
  unsigned long long seen = 0;
  for (;;) {
    LOOK_UNTIL(pool, is_new(look(pool), seen))
    while (!enter(pool, &seen)) {
      if (!sleep_until_opened(pool, seen)) return NULL;
    }
    take_indices(pool, pool->body, pool->context, pool->count);
    leave(pool);
  }
}

ck_pool *ck_pool_create(int threads, int processors) {
  if (threads < 1) threads = 1;
  if (threads > 1024) threads = 1024;
  size_t bytes = (sizeof(ck_pool) + (size_t)threads * sizeof(pthread_t) + LINE - 1) / LINE * LINE;
  ck_pool *pool = aligned_alloc(LINE, bytes);
  if (!pool) return NULL;
  memset(pool, 0, bytes);
  pool->is_patient = threads <= processors;
  pthread_mutex_init(&pool->callers, NULL);
  pthread_mutex_init(&pool->state, NULL);
  pthread_cond_init(&pool->opened, NULL);
  pthread_cond_init(&pool->left, NULL);
  while (pool->workers < threads - 1) {
    if (pthread_create(&pool->threads[pool->workers], NULL, worker_main, pool) != 0) break;
    pool->workers++;
  }
  return pool;
}

int ck_pool_threads(const ck_pool *pool) { return pool->workers + 1; }

void ck_pool_run(ck_pool *pool, size_t count, void (*body)(void *, size_t), void *context) {
  if (count == 0) return;
  if (inside_body || count == 1 || pool->workers == 0) {
    for (size_t index = 0; index < count; index++) body(context, index);
    return;
  }
  pthread_mutex_lock(&pool->callers);
  pool->body = body;
  pool->context = context;
  pool->count = count;
  atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
  unsigned long long job = (look(pool) >> JOB_SHIFT) + 1;
  atomic_store(&pool->gate, job << JOB_SHIFT | OPEN);
  wake(pool, count);
  take_indices(pool, body, context, count);
  atomic_fetch_and(&pool->gate, ~OPEN);
  LOOK_UNTIL(pool, (look(pool) & INSIDE) == 0)
  if ((atomic_load(&pool->gate) & INSIDE) != 0) {
    pthread_mutex_lock(&pool->state);
    atomic_store(&pool->caller_sleeps, 1);
    while ((atomic_load(&pool->gate) & INSIDE) != 0) pthread_cond_wait(&pool->left, &pool->state);
    atomic_store(&pool->caller_sleeps, 0);
    pthread_mutex_unlock(&pool->state);
  }
  pthread_mutex_unlock(&pool->callers);
}

void ck_pool_destroy(ck_pool *pool) {
  pthread_mutex_lock(&pool->state);
  atomic_store(&pool->ending, 1);
  pthread_cond_broadcast(&pool->opened);
  pthread_mutex_unlock(&pool->state);
  for (int i = 0; i < pool->workers; i++) pthread_join(pool->threads[i], NULL);
  pthread_cond_destroy(&pool->left);
  pthread_cond_destroy(&pool->opened);
  pthread_mutex_destroy(&pool->state);
  pthread_mutex_destroy(&pool->callers);
  free(pool);
}
