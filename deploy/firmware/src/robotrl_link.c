#include "robotrl_link.h"

#include <string.h>

enum { HEAD = 8, TAIL = 2, STATE_HEAD = 25, IMU = 26, COMMAND_HEAD = 4 };

static uint8_t *put16(uint8_t *at, uint16_t value) {
  at[0] = (uint8_t)value;
  at[1] = (uint8_t)(value >> 8);
  return at + 2;
}

static uint8_t *put32(uint8_t *at, uint32_t value) {
  return put16(put16(at, (uint16_t)value), (uint16_t)(value >> 16));
}

static uint8_t *put_float(uint8_t *at, float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return put32(at, bits);
}

static uint16_t get16(const uint8_t *at) { return (uint16_t)(at[0] | at[1] << 8); }

static uint32_t get32(const uint8_t *at) { return get16(at) | (uint32_t)get16(at + 2) << 16; }

uint16_t rl_crc16(const uint8_t *data, uint16_t count) {
  uint16_t crc = 0xFFFF;
  while (count--) {
    crc ^= (uint16_t)(*data++ << 8);
    for (int bit = 0; bit < 8; bit++)
      crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
  }
  return crc;
}

uint16_t rl_cobs_encode(const uint8_t *from, uint16_t count, uint8_t *to) {
  uint16_t code = 0, end = 1; /* where the distance to the next zero goes, and where bytes go */
  for (uint16_t i = 0; i < count; i++) {
    if (from[i]) {
      to[end++] = from[i];
    } else {
      to[code] = (uint8_t)(end - code);
      code = end++;
    }
  }
  to[code] = (uint8_t)(end - code);
  return end;
}

int rl_cobs_decode(const uint8_t *from, uint16_t count, uint8_t *to) {
  uint16_t at = 0, out = 0;
  while (at < count) {
    uint8_t code = from[at++];
    if (!code || at + code - 1 > count) return -1;
    for (uint8_t i = 1; i < code; i++) {
      if (!from[at]) return -1;
      to[out++] = from[at++];
    }
    if (code < 0xFF && at < count) to[out++] = 0;
  }
  return out;
}

void rl_begin(rl_link *link) {
  rl_link begun;
  memset(&begun, 0, sizeof begun);
  begun.joints = link->joints < RL_MAX_JOINTS ? link->joints : RL_MAX_JOINTS;
  begun.modes = link->modes;
  begun.parts = link->parts;
  begun.firmware = link->firmware;
  memcpy(begun.uid, link->uid, sizeof begun.uid);
  *link = begun;
}

bool rl_drives(const rl_link *link) {
  return link->status == RL_DRIVEN ||
         (link->status == RL_STOPPED && link->after == RL_HOLD && link->mode != RL_OFF);
}

static void let_go(rl_link *link) {
  link->mode = RL_OFF;
  memset(link->target, 0, sizeof link->target);
}

void rl_stop(rl_link *link, uint8_t reason) {
  if (link->status == RL_STOPPED) return; /* the first reason stays */
  bool driven = link->status == RL_DRIVEN;
  link->status = RL_STOPPED;
  link->reason = reason;
  if (!driven || link->after != RL_HOLD) let_go(link);
  else if (link->mode != RL_POSITION) memset(link->target, 0, sizeof link->target);
}

void rl_pin(rl_link *link, bool pressed) {
  link->pin = pressed;
  if (pressed) rl_stop(link, RL_PIN);
}

void rl_tick(rl_link *link, uint32_t now_us) {
  if (link->status == RL_DRIVEN && now_us - link->command_us > link->deadman_us)
    rl_stop(link, RL_SILENCE);
}

/* Age in steps of 100 us, the largest number for "never" and for all that is older. */
static uint16_t age(bool measured, uint32_t measured_us, uint32_t now_us) {
  uint32_t steps = (now_us - measured_us) / 100;
  return measured && steps < 0xFFFF ? (uint16_t)steps : 0xFFFF;
}

/* Frame the payload that stands at link->out + HEAD, up to `end`, and encode it into link->out. */
static uint16_t finish(rl_link *link, uint8_t type, const uint8_t *end, uint32_t now_us) {
  uint8_t raw[RL_MAX_RAW];
  uint16_t payload = (uint16_t)(end - (link->out + HEAD));
  raw[0] = RL_VERSION;
  raw[1] = type;
  put16(raw + 2, ++link->sent);
  put32(raw + 4, now_us);
  memcpy(raw + HEAD, link->out + HEAD, payload);
  put16(raw + HEAD + payload, rl_crc16(raw, (uint16_t)(HEAD + payload)));
  uint16_t count = rl_cobs_encode(raw, (uint16_t)(HEAD + payload + TAIL), link->out);
  link->out[count] = 0;
  return (uint16_t)(count + 1);
}

static uint16_t answer_hello(rl_link *link, uint32_t now_us) {
  uint8_t *at = put16(link->out + HEAD, link->firmware);
  *at++ = link->joints;
  *at++ = link->modes;
  *at++ = link->parts;
  memcpy(at, link->uid, sizeof link->uid);
  return finish(link, RL_WELCOME, at + sizeof link->uid, now_us);
}

static uint16_t answer_state(rl_link *link, uint32_t now_us) {
  uint32_t silent_us = now_us - link->command_us, left_ms = 0;
  if (link->status == RL_DRIVEN && silent_us < link->deadman_us)
    left_ms = (link->deadman_us - silent_us) / 1000;
  uint8_t *at = put16(link->out + HEAD, link->heard);
  at = put16(put16(put16(at, link->lost), link->damaged), (uint16_t)left_ms);
  at = put32(put32(at, link->echo_us), link->heard_us);
  *at++ = link->status;
  *at++ = link->reason;
  *at++ = link->refused;
  *at++ = (uint8_t)(link->parts | (rl_drives(link) ? RL_MOTORS_ON : 0));
  at = put16(put16(at, link->supply_mv), age(link->joints_measured, link->joints_us, now_us));
  *at++ = link->joints;
  for (uint8_t i = 0; i < link->joints; i++) {
    const rl_joint *joint = &link->joint[i];
    at = put_float(put_float(put_float(at, joint->position), joint->velocity), joint->torque);
  }
  if (link->parts & RL_HAS_IMU) {
    at = put16(at, age(link->imu_measured, link->imu_us, now_us));
    for (int i = 0; i < 3; i++) at = put_float(at, link->angular_velocity[i]);
    for (int i = 0; i < 3; i++) at = put_float(at, link->gravity[i]);
  }
  return finish(link, RL_STATE, at, now_us);
}

static uint8_t judge(const rl_link *link, const uint8_t *payload, uint16_t count) {
  if (!link->greeted) return RL_NOT_GREETED;
  if (count < COMMAND_HEAD) return RL_WRONG_COUNT;
  uint16_t deadman_ms = get16(payload);
  uint8_t joints = payload[2], mode = payload[3] & 0x0F, after = payload[3] >> 4;
  if (mode == RL_OFF) return count == COMMAND_HEAD && !joints ? RL_ACCEPTED : RL_WRONG_COUNT;
  if (link->status == RL_STOPPED) return RL_IS_STOPPED;
  if (joints != link->joints || count != COMMAND_HEAD + 4 * joints) return RL_WRONG_COUNT;
  if (mode > RL_TORQUE || !(link->modes & RL_CAN(mode)) || after > RL_HOLD) return RL_WRONG_MODE;
  if (!deadman_ms || deadman_ms > RL_MAX_DEADMAN_MS) return RL_WRONG_DEADMAN;
  for (uint8_t i = 0; i < joints; i++)
    if ((get32(payload + COMMAND_HEAD + 4 * i) & 0x7F800000) == 0x7F800000) return RL_NOT_FINITE;
  return RL_ACCEPTED;
}

static void obey(rl_link *link, const uint8_t *payload, uint16_t count, uint32_t now_us) {
  link->refused = judge(link, payload, count);
  if (link->refused) return;
  if (!(payload[3] & 0x0F)) { /* off: always granted; a stop stays latched */
    let_go(link);
    if (link->status == RL_DRIVEN) link->status = RL_LIMP;
    return;
  }
  link->status = RL_DRIVEN;
  link->mode = payload[3] & 0x0F;
  link->after = payload[3] >> 4;
  link->deadman_us = 1000u * get16(payload);
  link->command_us = now_us;
  for (uint8_t i = 0; i < link->joints; i++) {
    uint32_t bits = get32(payload + COMMAND_HEAD + 4 * i);
    memcpy(&link->target[i], &bits, 4);
  }
}

/* Whether a frame is newer than the last one, counting those that got lost in between. */
static bool follows(rl_link *link, uint16_t sequence) {
  uint16_t ahead = (uint16_t)(sequence - link->heard);
  if (!ahead || ahead & 0x8000) return false;
  link->lost = (uint16_t)(link->lost + ahead - 1);
  return true;
}

static uint16_t handle(rl_link *link, const uint8_t *raw, uint16_t count, uint32_t now_us) {
  uint8_t type = raw[1];
  uint16_t sequence = get16(raw + 2);
  bool known = type == RL_HELLO || type == RL_POLL || type == RL_COMMAND || type == RL_STOP ||
               type == RL_CLEAR;
  if (!known) return 0;
  rl_tick(link, now_us); /* what waited in a buffer until now has come too late */
  /* A stop is obeyed whatever its number; anything else must be new. */
  if (type == RL_STOP) rl_stop(link, RL_BY_HOST);
  if (type == RL_HELLO) link->lost = link->damaged = 0;
  else if (link->greeted && !follows(link, sequence)) return 0;
  link->heard = sequence;
  link->echo_us = get32(raw + 4);
  link->heard_us = now_us;
  if (type == RL_HELLO) {
    link->greeted = true;
    link->refused = RL_ACCEPTED;
    if (link->status == RL_WAITING) link->status = RL_LIMP;
    return answer_hello(link, now_us);
  }
  if (type == RL_COMMAND) obey(link, raw + HEAD, (uint16_t)(count - HEAD - TAIL), now_us);
  if (type == RL_CLEAR && link->status == RL_STOPPED && !link->pin) {
    let_go(link);
    link->status = link->greeted ? RL_LIMP : RL_WAITING;
    link->reason = RL_NONE;
  }
  return answer_state(link, now_us);
}

uint16_t rl_receive(rl_link *link, uint8_t byte, uint32_t now_us) {
  if (byte) {
    if (link->in_count < sizeof link->in) link->in[link->in_count++] = byte;
    else link->overlong = true;
    return 0;
  }
  uint16_t encoded = link->in_count;
  bool overlong = link->overlong;
  link->in_count = 0;
  link->overlong = false;
  if (!encoded) return 0;
  int count = overlong ? -1 : rl_cobs_decode(link->in, encoded, link->in);
  if (count < HEAD + TAIL || link->in[0] != RL_VERSION ||
      rl_crc16(link->in, (uint16_t)(count - TAIL)) != get16(link->in + count - TAIL)) {
    link->damaged++;
    return 0;
  }
  return handle(link, link->in, (uint16_t)count, now_us);
}
