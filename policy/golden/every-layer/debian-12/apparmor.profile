profile "clawsec-every-layer" flags=(mediate_deleted) {
  file,
  capability,
  network,
  signal,
  ptrace,
  unix,
  dbus,
  # file/dotenv
  audit deny "/home/agent/work/{,**/}.env{,/}" rmlx,
}
