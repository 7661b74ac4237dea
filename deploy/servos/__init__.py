"""What all families of servos have in common: registers, buses, data sheets, the device."""
