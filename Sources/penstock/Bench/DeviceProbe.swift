// SPDX-License-Identifier: Apache-2.0
import PenstockSystem
import Synchronization

/// The limit that no durable log on this device can pass: append one aligned block to blocks that
/// were written before, sync, repeat; by one writer, or by several that write to a part of the file
/// each, and sync it each for itself.
final class DeviceProbe: Sendable {
  private let file: any File
  private let files = PosixFileSystem()
  private let path: String
  private let size = Mutex(0)

  /// Makes a file of so many bytes of written zeros in a directory.
  init(_ directory: String, size: Int = 64 << 20) throws {
    path = "\(directory)/device"
    file = try files.open(path, .create)
    try grow(to: size)
  }

  func close() throws {
    try file.close()
    try files.remove(path)
  }

  private func grow(to wanted: Int) throws {
    try size.withLock { size in
      guard wanted > size else { return }
      let zeros = CommitBuffer(capacity: 1 << 20)
      zeros.putZeros(1 << 20)
      while size < wanted {
        try zeros.withBytes { bytes throws(SystemError) in
          try file.write(bytes, at: UInt64(size))
        }
        size += 1 << 20
      }
      try file.sync()
    }
  }

  /// - Parameter isSynced: without, only the writes are measured.
  func measure(
    block: Int, seconds: Double, writers: Int = 1, isSynced: Bool = true
  ) throws -> Measurement {
    try grow(to: writers * block)
    let part = size.withLock { $0 } / writers / block * block
    let start = RealClock().monotonicNanoseconds()
    let end = start + UInt64(seconds * 1e9)
    let parts = Mutex<[Result<Measurement, SystemError>]>([])
    let threads = try (0..<writers).map { writer in
      try SystemThread(name: "penstock-probe") {
        let range = writer * part..<(writer + 1) * part
        let measured = Result { () throws(SystemError) in
          try self.write(block, range, isSynced, start, end)
        }
        parts.withLock { $0.append(measured) }
      }
    }
    for thread in threads { thread.join() }
    var all = Measurement(elapsed: 0)
    for part in parts.withLock({ $0 }) { all.add(try part.get()) }
    return all
  }

  /// The limit of a workload, measured before and after it, as the device's speed drifts; nil of
  /// one that commits nothing.
  func beside<Outcome>(
    _ workload: Workload, isSynced: Bool = true, _ run: () async throws -> Outcome
  ) async throws -> (outcome: Outcome, limit: BenchReport.DeviceRow?) {
    guard let block = workload.block else { return (try await run(), nil) }
    let writers = min(workload.lanes, 64)
    func measure() throws -> Measurement {
      try self.measure(
        block: block, seconds: min(1, workload.seconds / 3), writers: writers, isSynced: isSynced)
    }
    let before = try measure()
    let outcome = try await run()
    return (outcome, .init(writers, block, before.joined(try measure())))
  }

  private func write(
    _ block: Int, _ range: Range<Int>, _ isSynced: Bool, _ start: UInt64, _ end: UInt64
  ) throws(SystemError) -> Measurement {
    let buffer = CommitBuffer(capacity: block)
    for index in 0..<block / 8 { buffer.put(UInt64(index) &* 0x9e37_79b9_7f4a_7c15) }
    let clock = RealClock()
    var measurement = Measurement()
    var offset = range.lowerBound
    var now = clock.monotonicNanoseconds()
    while now < end {
      try buffer.withBytes { bytes throws(SystemError) in
        try file.write(bytes, at: UInt64(offset))
      }
      if isSynced { try file.syncData() }
      let after = clock.monotonicNanoseconds()
      measurement.record(1, from: now, to: after, since: start)
      now = after
      offset = offset + 2 * block <= range.upperBound ? offset + block : range.lowerBound
    }
    return measurement
  }
}
