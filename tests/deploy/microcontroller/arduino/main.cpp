#include "Arduino.h"
#include "Wire.h"

int terminal;
Stream Serial, Serial1;
TwoWire Wire;

#include "balancer.ino"

int main(int, char **arguments) {
  terminal = atoi(arguments[1]);
  setup();
  for (;;) {
    struct pollfd ready = {terminal, POLLIN, 0};
    poll(&ready, 1, 1);
    if (ready.revents & (POLLHUP | POLLERR)) return 0;
    loop();
  }
}
