# Shell functions that bring up a guest's network as the host wants it, for sh. Read by images/boot/holdfast-init, process 1
# of an appliance, and by install/holdfast-network under systemd. Uses ip (busybox's or iproute2's), tr, grep.
#
# The host's words, on the kernel's command line or, where a boot loader writes that, in SMBIOS (OEM strings):
#   holdfast.service=10.77.0.10/24  holdfast.service6=fd00::10/64    address of the first NIC
#   holdfast.gateway=10.77.0.1      holdfast.gateway6=fd00::1
#   holdfast.mgmt=192.168.77.11/24  holdfast.mgmt6=...               address of the second NIC
#   holdfast.name=web-a             host name
#   holdfast.ports=80,8080          protected ports, for the agent
#   holdfast.accept-queues          for the agent: they are to be looked at
#   holdfast.storage=MODE:DIRECTORY for the agent, see storage.ts

# Prints them, one in a line.
holdfast_words() {
  for source in /proc/cmdline /sys/firmware/dmi/tables/DMI; do
    [ -r "$source" ] && LC_ALL=C tr -c '!-~' '\n' <"$source"
  done | grep '^holdfast\.[a-z0-9]*=' || :
}

# Sets the variables name, service, service6, gateway, gateway6, mgmt, mgmt6 to what they say, or to nothing.
holdfast_read() {
  name='' service='' service6='' gateway='' gateway6='' mgmt='' mgmt6=''
  for word in $(holdfast_words); do
    case $word in
      holdfast.name=*) name=${word#*=} ;;
      holdfast.service=*) service=${word#*=} ;;
      holdfast.service6=*) service6=${word#*=} ;;
      holdfast.gateway=*) gateway=${word#*=} ;;
      holdfast.gateway6=*) gateway6=${word#*=} ;;
      holdfast.mgmt=*) mgmt=${word#*=} ;;
      holdfast.mgmt6=*) mgmt6=${word#*=} ;;
    esac
  done
}

# NICs in the order of their place on the bus, whatever they are called: service first, then management.
holdfast_nics() {
  for nic in /sys/class/net/*; do
    [ -e "$nic/device" ] && echo "$(readlink -f "$nic/device") ${nic##*/}"
  done | sort | cut -d' ' -f2
}

sysctl() { [ -e "/proc/sys/$1" ] && echo "$2" >"/proc/sys/$1"; }

# For a guest that is supervised, and whose addresses are given.
holdfast_sysctls() {
  sysctl kernel/panic 0 # stay, so that the host can look
  # The service address exists in two guests, only one of which is connected: detection would see the other.
  sysctl net/ipv6/conf/all/accept_dad 0
  sysctl net/ipv6/conf/default/accept_dad 0
  # Addresses and routes are those of the host's words; a router's offer would differ between primary and backup.
  sysctl net/ipv6/conf/all/accept_ra 0
  sysctl net/ipv6/conf/default/accept_ra 0
}

holdfast_address() { # holdfast_address <nic> <ipv4> <ipv6>
  [ -n "$1" ] || return 0
  [ -n "$2" ] && ip addr add "$2" dev "$1"
  sysctl "net/ipv6/conf/$1/accept_dad" 0 # a NIC that was there before the defaults changed has its own
  sysctl "net/ipv6/conf/$1/accept_ra" 0
  [ -n "$3" ] && ip -6 addr add "$3" dev "$1"
  ip link set "$1" up
}

# Addresses and routes of the words read before, for the NICs given.
holdfast_addresses() { # holdfast_addresses <service NIC> <management NIC>
  ip link set lo up
  holdfast_address "${1:-}" "$service" "$service6"
  holdfast_address "${2:-}" "$mgmt" "$mgmt6"
  [ -n "$gateway" ] && ip route add default via "$gateway"
  [ -n "$gateway6" ] && ip -6 route add default via "$gateway6" dev "$1" # dev: it may be link-local
  :
}
