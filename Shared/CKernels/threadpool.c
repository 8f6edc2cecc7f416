#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "ckernels.h"

// Lock order: callers, then state. A job is open while `body` is set; workers that wake after it was closed go back to sleep, so
// the caller never waits for a thread that has nothing to do.
struct ck_pool {
  pthread_mutex_t callers;
  pthread_mutex_t state;
  pthread_cond_t opened, left;
  void (*body)(void *, size_t);
  void *context;
  size_t count;
  atomic_size_t next;
  unsigned long job;
  int active;
  int ending;
  int workers;
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

static void *worker_main(void *argument) {
  ck_pool *pool = argument;
  unsigned long seen = 0;
  pthread_mutex_lock(&pool->state);
  for (;;) {
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
  }
  pthread_mutex_unlock(&pool->state);
  return NULL;
}

ck_pool *ck_pool_create(int threads) {
  if (threads < 1) threads = 1;
  if (threads > 1024) threads = 1024;
  ck_pool *pool = calloc(1, sizeof(ck_pool) + (size_t)threads * sizeof(pthread_t));
  if (!pool) return NULL;
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
