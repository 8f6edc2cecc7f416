#ifndef LOAD_H
#define LOAD_H
// The parts of the system that the capacity benchmark needs and that no Swift module has.
#include <sys/epoll.h>
#include <zmq.h>
#endif
