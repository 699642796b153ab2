// SPDX-License-Identifier: Apache-2.0

extension State {
  /// When the lease that a handle names ends; nil when it has ended, was given back or followed by
  /// another, or the message is gone.
  package func leaseEnd(_ handle: LeaseHandle) -> Timestamp? {
    guard let q = places[handle.queue.value],
      isLive(q, slot: handle.slot, message: handle.message), slab[handle.slot].state == .leased
    else { return nil }
    let activity = activities[Int(slab[handle.slot].link)]
    return activity.token == handle.token ? Timestamp(milliseconds: activity.deadline) : nil
  }
}
