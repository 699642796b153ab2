// SPDX-License-Identifier: Apache-2.0
import FuzzSupport
import PenstockLog
import PenstockSystem
import PenstockTesting

/// Segments with right checksums and wrong contents, behind the first segment of a real store.
enum Segments {
  /// A store as its creation leaves it.
  static let created: (disk: SimulatedFileSystem, next: SegmentStart) = {
    let disk = SimulatedFileSystem()
    do throws(LogError) {
      let (opened, _, found) = try Opening.open(disk, seed: 1)
      opened.log.close()
      let first = Opening.path(StoreFileName.segment(LSN(1)))
      let bytes = disk.contents(of: first) ?? []
      let seal = Repair.frames(of: bytes).last ?? 0
      return (
        disk,
        SegmentStart(
          store: opened.log.storeFile.store, firstLSN: found.lastLSN + 1, ordinal: 1,
          previous: bytes.word(seal + 60))
      )
    } catch {
      check(false, "a store cannot be made: \(error)")
      return (
        disk, SegmentStart(store: StoreID(high: 0, low: 0), firstLSN: 0, ordinal: 0, previous: 0)
      )
    }
  }()

  static func run(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    var input = Input(data, size)
    let disk = created.disk.copy()
    disk.kill()
    let choice = input.byte()
    var start = created.next
    // Two segments in a quarter of the inputs: the first part of them makes the first one.
    if choice & 3 == 0 {
      var part = Input(input.take(Int(input.byte())))
      let program = SegmentProgram(&part, at: start)
      disk.replace(Opening.path(StoreFileName.segment(LSN(start.firstLSN))), with: program.bytes)
      start = program.next
    }
    let program = SegmentProgram(&input, at: start)
    disk.replace(Opening.path(StoreFileName.segment(LSN(start.firstLSN))), with: program.bytes)
    Opening.examine(disk, goesOn: choice & 12 == 12)
    return 0
  }
}
