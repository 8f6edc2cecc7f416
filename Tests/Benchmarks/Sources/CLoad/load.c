#include "load.h"
