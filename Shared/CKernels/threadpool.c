#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "ckernels.h"

// How long a thread looks for what comes next before it sleeps: waking one takes tens of microseconds, and most operations of a
// network follow one another within less.
#define PATIENCE_NS 50000

// Lock order: callers, then state. A job is open while `body` is set; workers that wake after it was closed go back to sleep, so
// the caller never waits for a thread that has nothing to do. `job` and `active` change under `state` only; who looks at them without
// it looks again with it.
struct ck_pool {
  pthread_mutex_t callers;
  pthread_mutex_t state;
  pthread_cond_t opened, left;
  void (*body)(void *, size_t);
  void *context;
  size_t count;
  atomic_size_t next;
  atomic_ulong job;
  atomic_int active;
  int ending;
  int workers;
  int is_patient;  // every thread can have a processor of its own
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

static void *worker_main(void *argument) {
  ck_pool *pool = argument;
  unsigned long seen = 0;
  for (;;) {
    LOOK_UNTIL(pool, atomic_load_explicit(&pool->job, memory_order_relaxed) != seen)
    pthread_mutex_lock(&pool->state);
    while (!pool->ending && (pool->job == seen || pool->body == NULL)) pthread_cond_wait(&pool->opened, &pool->state);
    if (pool->ending) break;
    seen = pool->job;
    void (*body)(void *, size_t) = pool->body;
    void *context = pool->context;
    size_t count = pool->count;
    pool->active++;
    pthread_mutex_unlock(&pool->state);
    take_indices(pool, body, context, count);
    pthread_mutex_lock(&pool->state);
    if (--pool->active == 0) pthread_cond_signal(&pool->left);
    pthread_mutex_unlock(&pool->state);
  }
  pthread_mutex_unlock(&pool->state);
  return NULL;
}

static int available_processors(void) {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

ck_pool *ck_pool_create(int threads) {
  if (threads < 1) threads = 1;
  if (threads > 1024) threads = 1024;
  ck_pool *pool = calloc(1, sizeof(ck_pool) + (size_t)threads * sizeof(pthread_t));
  if (!pool) return NULL;
  pool->is_patient = threads <= available_processors();
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
  pthread_mutex_lock(&pool->state);
  pool->body = body;
  pool->context = context;
  pool->count = count;
  atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
  pool->job++;
  pthread_cond_broadcast(&pool->opened);
  pthread_mutex_unlock(&pool->state);
  take_indices(pool, body, context, count);
  pthread_mutex_lock(&pool->state);
  pool->body = NULL;
  pthread_mutex_unlock(&pool->state);
  LOOK_UNTIL(pool, atomic_load_explicit(&pool->active, memory_order_relaxed) == 0)
  pthread_mutex_lock(&pool->state);
  while (pool->active > 0) pthread_cond_wait(&pool->left, &pool->state);
  pthread_mutex_unlock(&pool->state);
  pthread_mutex_unlock(&pool->callers);
}

void ck_pool_destroy(ck_pool *pool) {
  pthread_mutex_lock(&pool->state);
  pool->ending = 1;
  pthread_cond_broadcast(&pool->opened);
  pthread_mutex_unlock(&pool->state);
  for (int i = 0; i < pool->workers; i++) pthread_join(pool->threads[i], NULL);
  pthread_cond_destroy(&pool->left);
  pthread_cond_destroy(&pool->opened);
  pthread_mutex_destroy(&pool->state);
  pthread_mutex_destroy(&pool->callers);
  free(pool);
}
