/* As much of Arduino as the example sketch uses, on this computer: its serial port to the host is
   an open terminal, and its servos obey at once (Dynamixel2Arduino.h, Adafruit_BNO08x.h). */
#pragma once
#include <math.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOW = 0, HIGH = 1, INPUT_PULLUP = 2 };
extern int terminal;

struct Stream {
  void begin(unsigned long) {}
  int available() {
    struct pollfd ready = {terminal, POLLIN, 0};
    return poll(&ready, 1, 0) == 1 && (ready.revents & POLLIN);
  }
  int read() {
    uint8_t byte;
    return ::read(terminal, &byte, 1) == 1 ? byte : -1;
  }
  size_t write(const uint8_t *data, size_t count) { return (size_t)::write(terminal, data, count); }
};
extern Stream Serial, Serial1;

inline uint32_t micros() {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint32_t)(now.tv_sec * 1000000ull + now.tv_nsec / 1000);
}
inline void pinMode(int, int) {}
/* The button is pressed while there is a file of this name. */
inline int digitalRead(int) { return access(getenv("STOP_PRESSED"), F_OK) ? LOW : HIGH; }
