profile "clawsec-every-layer" flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  network,
  signal,
  ptrace,
  unix,
  dbus,
  # file/dotenv
  audit deny "/home/agent/work/{,**/}.env{,/}" rmx,
}
