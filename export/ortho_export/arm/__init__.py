"""Programs on 64-bit Arm: under an emulator here, or on a phone or board over adb or ssh."""
