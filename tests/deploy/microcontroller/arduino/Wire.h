#pragma once
struct TwoWire {
  void begin() {}
  void setClock(unsigned long) {}
};
extern TwoWire Wire;
