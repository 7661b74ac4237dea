/* Servos that turn as they are told while their torque is on, with the registers of an X servo. */
#pragma once
#include "Arduino.h"

namespace ControlTableItem {
enum Item {
  BUS_WATCHDOG, GOAL_VELOCITY, RETURN_DELAY_TIME, VELOCITY_LIMIT, VELOCITY_P_GAIN, VELOCITY_I_GAIN,
  PRESENT_INPUT_VOLTAGE, ITEMS
};
}
enum { OP_VELOCITY = 1 };

struct Dynamixel2Arduino {
  int32_t items[2][ControlTableItem::ITEMS] = {};
  bool on[2] = {};
  Dynamixel2Arduino(Stream &, int) {}
  void begin(unsigned long) {}
  bool setPortProtocolVersion(float) { return true; }
  bool setOperatingMode(uint8_t, uint8_t) { return true; }
  bool torqueOn(uint8_t id) { return on[id] = true; }
  bool torqueOff(uint8_t id) { return !(on[id] = false); }
  bool writeControlTableItem(uint8_t item, uint8_t id, int32_t value) {
    items[id][item] = value;
    return true;
  }
  int32_t readControlTableItem(uint8_t, uint8_t) { return 50; }
  int32_t read(uint8_t id, uint16_t, uint16_t, uint8_t *data, uint16_t size, uint32_t) {
    const int32_t both[2] = {on[id] ? items[id][ControlTableItem::GOAL_VELOCITY] : 0, 2048 + 1024};
    memcpy(data, both, size);
    return size;
  }
};
