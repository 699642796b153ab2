// SPDX-License-Identifier: Apache-2.0
import PenstockLog
import PenstockSystem
import PenstockTesting
import Testing

@Suite struct WhatASyncSays {
  /// A frame that ends within a sector shares it with the next one, which may tear it: a later
  /// frame that called it durable would make a legal loss look like damage.
  @Test func nothingBehindTheLastFullSectorIsCalledDurable() throws {
    let disk = SimulatedFileSystem()
    let opened = try SegmentedLog.open(
      directory: "/store", fileSystem: disk, random: StableRandom(seed: 1),
      clock: SimulatedClock(wallMilliseconds: 1)
    ) { (_, _) throws(LogError) in }
    var tail = opened.tail
    _ = try opened.log.prepareSegment(isCancelled: { false })
    tail.prepared()
    var last: [LSN] = []
    for synced in [true, false] {
      guard case .ready = tail.makeRoom(LogFormat.recordSize(payload: 4), for: .upkeep)
      else {
        Issue.record("no room")
        return
      }
      last.append(tail.append(payload: 4, synced: synced) { $0.put(UInt32(7)) }.lsn)
      for batch in tail.takeBatches() {
        try opened.log.write(batch)
        tail.wrote(batch)
      }
    }
    #expect(try opened.log.sync() == last[0])
    #expect(tail.writtenLSN == last[1])
    opened.log.close()
  }
}
