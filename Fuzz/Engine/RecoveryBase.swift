// SPDX-License-Identifier: Apache-2.0
import FuzzSupport
import PenstockCore
import PenstockLog
import PenstockSystem
import PenstockTesting

/// Small real stores, written by the log itself, whose files the recovery target edits.
enum RecoveryBase {
  /// One run: opens, appends records in commits, and ends.
  private static func session(
    _ disk: SimulatedFileSystem, seed: UInt64, _ commits: [[(Entry, [UInt8])]], synced: Int,
    sealing: Bool
  ) {
    do {
      var (opened, _, _) = try Opening.open(disk, seed: seed)
      for (place, records) in commits.enumerated() {
        for (entry, body) in records {
          var content: MessageContent?
          if case .sent = entry.record { content = MessageContent(body: body, groupID: "g") }
          let size = entry.payloadSize(content)
          while opened.tail.needsSegment {
            check(try opened.log.prepareSegment(isCancelled: { false }), "nobody cancelled")
            opened.tail.prepared()
          }
          guard
            case .ready = opened.tail.makeRoom(
              LogFormat.recordSize(payload: size), for: .send)
          else { return check(false, "there is no room") }
          _ = opened.tail.append(payload: size, synced: place < synced) {
            entry.encode(content, into: $0)
          }
        }
        let batches = opened.tail.takeBatches()
        for batch in batches {
          try opened.log.write(batch)
          opened.tail.wrote(batch)
        }
        if place < synced { opened.tail.synced(upTo: try opened.log.sync()) }
      }
      if sealing { try opened.log.seal() }
      opened.log.close()
      disk.kill()
    } catch { check(false, "a base store cannot be written: \(error)") }
  }

  private static func entry(_ queue: UInt32, _ minute: Int64, _ record: Record) -> Entry {
    let time = Timestamp(milliseconds: 1_700_000_000_000 + minute * 60_000)
    return Entry(queue: QueueID(queue), time: time, record: record)
  }

  private static func sent(_ queue: UInt32, _ minute: Int64, size: Int) -> (Entry, [UInt8]) {
    let id = MessageID(randomHigh: UInt64(minute), randomLow: UInt64(size))
    return (
      entry(queue, minute, .sent(.init(id: id, visibleAt: nil))),
      [UInt8](repeating: UInt8(truncatingIfNeeded: minute), count: size)
    )
  }

  /// LSN 2 to 8.
  private static let first: [[(Entry, [UInt8])]] = [
    [(entry(1, 0, .queueCreated(name: "orders", settings: QueueSettings())), [])],
    [sent(1, 1, size: 10), sent(1, 2, size: 300)],
    [
      (
        entry(
          1, 3,
          .leased(message: 3, slot: 0, deadline: Timestamp(milliseconds: 1_700_000_900_000))), []
      )
    ],
    [(entry(1, 4, .deleted(message: 3, slot: 0)), [])],
    [(entry(2, 5, .queueCreated(name: "tea", settings: QueueSettings())), [])],
    [sent(2, 6, size: 5)],
  ]

  /// From LSN 9 on; enough for more than one segment.
  private static let second: [[(Entry, [UInt8])]] =
    (10..<16).map { [sent(1, $0, size: 9000)] } + [
      [(entry(2, 20, .purged), [])], [sent(2, 21, size: 8)], [sent(2, 22, size: 4100)],
    ]

  /// The stores by number: with files, sizes and states that differ.
  static let disks: [SimulatedFileSystem] = (0..<5).map { number in
    let disk = SimulatedFileSystem()
    switch number {
    // Just created.
    case 0: session(disk, seed: 1, [], synced: 0, sealing: true)
    // Closed cleanly.
    case 1: session(disk, seed: 2, first, synced: 99, sealing: true)
    // Died with everything synced.
    case 2: session(disk, seed: 3, first, synced: 99, sealing: false)
    // Died with commits that were not synced.
    case 3: session(disk, seed: 4, first, synced: 3, sealing: false)
    // Two runs and a roll.
    default:
      session(disk, seed: 5, first, synced: 99, sealing: true)
      session(disk, seed: 6, second, synced: 99, sealing: false)
    }
    return disk
  }
}
