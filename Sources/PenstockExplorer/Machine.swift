// SPDX-License-Identifier: Apache-2.0
package import Penstock
internal import PenstockSystem
internal import PenstockTesting

/// A store on a simulated disk, whose threads take turns when told to.
final class Machine {
  let store: Store
  let driver: StoreDriver
  let clock: SimulatedClock
  /// What the start replayed.
  let replayed = Replayed()

  /// Turns after which a store that still finds something to do is stuck.
  static let turnLimit = 20_000

  init(
    _ setup: Setup, _ fileSystem: any FileSystem, _ clock: SimulatedClock, _ random: StableRandom
  ) throws(PenstockError) {
    self.clock = clock
    var options = StoreOptions()
    options.segmentSize = setup.segmentSize
    options.durability = setup.durability
    options.window = setup.window
    options.spareSegments = setup.spareSegments
    // So half of the histories read what they wrote from the disk.
    if setup.sectorSize < 4096 { options.recentBytes = 0 }
    var environment = StoreEnvironment(fileSystem: fileSystem, clock: clock, random: random)
    environment.plantedBug = setup.canary?.inEngine
    let (replayed, spoil) = (replayed, setup.canary?.replaying)
    environment.replaying = { entry in
      replayed.note(entry.record)
      return spoil?(&entry) ?? 1
    }
    (store, driver) = try Store.openDriven(
      at: Setup.directory, options: options, environment: environment)
  }

  /// Takes turns until nobody has anything to do. False when that does not end.
  func settle() -> Bool {
    for _ in 0..<Self.turnLimit {
      guard let worker = driver.due.first else { return true }
      driver.turn(worker)
    }
    return false
  }

  /// Does an operation to its end; nil when no answer comes.
  func answer<T: Sendable>(
    _ start: (@escaping Completion<T>) -> Void
  ) -> Result<T, PenstockError>? {
    let box = Box<T>()
    start { box.result = $0 }
    return settle() ? box.result : nil
  }
}

/// Kinds of records that a start replayed.
// Unchecked: a replay has one thread.
final class Replayed: @unchecked Sendable {
  private(set) var events: Set<Event> = []

  func note(_ record: Record) {
    switch record {
    case .sent(let sent) where sent.isParked: events.insert(.replayedParked)
    case .sent(let sent) where sent.group != nil: events.insert(.replayedGroups)
    case .transferred: events.insert(.replayedTransfers)
    case .drawn: events.insert(.replayedDraws)
    case .moved: events.insert(.replayedMoves)
    case .setAside: events.insert(.replayedSetAside)
    case .excised: events.insert(.replayedSweeps)
    default: break
    }
  }
}

/// Takes an answer.
// Unchecked: simulations have one thread.
final class Box<T: Sendable>: @unchecked Sendable {
  var result: Result<T, PenstockError>?
}

/// What a history runs on.
package struct Setup: Sendable {
  static let directory = "/store"

  package var segmentSize = 64 << 10
  /// So few messages are parked early, and little dead weight is compacted.
  package var window = 4
  package var spareSegments = 1
  /// What a crash keeps or drops together, in bytes.
  package var sectorSize = 4096
  /// Whether a torn sector may also hold garbage.
  package var isGarbling = false
  package var durability = Durability.synced
  /// Whether an exploration also loses power at every call of the recovery after each loss.
  var losesRecovery = false
  /// Whether it also damages the disk that is left at the end, sector by sector.
  var damages = false
  /// The bug that is planted.
  package var canary: Canary?

  package init() {}

  /// What a history says of its machine.
  init(_ history: [Step], _ canary: Canary?) {
    self.canary = canary
    guard let step = history.first, step.verb == .machine else { return }
    if step.number(0, 0...1) == 1 { sectorSize = 512 }
    isGarbling = step.number(1, 0...1) == 1
    if step.number(2, 0...1) == 1 { durability = .written }
    losesRecovery = step.number(3, 0...1) == 1
    damages = step.number(4, 0...1) == 1
    if step.number(5, 0...1_000_000) > 0 { window = step.number(5, 0...1_000_000) }
  }
}

/// Nothing that was pending survives.
struct OldestChooser: Chooser {
  mutating func choose(_ count: Int) -> Int { 0 }
}
