// SPDX-License-Identifier: Apache-2.0
import Foundation

/// What `Benchmarks/counter.c` counts in this process, when that was loaded before it.
struct MicroCounters {
  struct Counts {
    var allocations = 0.0
    var bytes = 0.0
    var objects = 0.0
    var retains = 0.0
    var releases = 0.0

    /// What came since `before`, for each of so many operations.
    func since(_ before: Counts, each: Double) -> Counts {
      Counts(
        allocations: (allocations - before.allocations) / each,
        bytes: (bytes - before.bytes) / each, objects: (objects - before.objects) / each,
        retains: (retains - before.retains) / each, releases: (releases - before.releases) / each)
    }

    /// The less of each: what a thread in the background does falls out of it.
    func least(_ other: Counts) -> Counts {
      Counts(
        allocations: min(allocations, other.allocations), bytes: min(bytes, other.bytes),
        objects: min(objects, other.objects), retains: min(retains, other.retains),
        releases: min(releases, other.releases))
    }
  }

  private typealias Switch = @convention(c) (CInt) -> Void
  private typealias Read = @convention(c) (UnsafeMutablePointer<UInt64>) -> Void
  private let set: Switch
  private let read: Read

  /// Nil when nobody counts.
  init?() {
    guard let set = dlsym(nil, "penstock_count"), let read = dlsym(nil, "penstock_counts") else {
      return nil
    }
    self.set = unsafeBitCast(set, to: Switch.self)
    self.read = unsafeBitCast(read, to: Read.self)
  }

  /// Counting costs time, so it is off while time is measured.
  func count(_ isOn: Bool) { set(isOn ? 1 : 0) }

  var counts: Counts {
    var all = [UInt64](repeating: 0, count: 5)
    read(&all)
    return Counts(
      allocations: Double(all[0]), bytes: Double(all[1]), objects: Double(all[2]),
      retains: Double(all[3]), releases: Double(all[4]))
  }
}
