// SPDX-License-Identifier: Apache-2.0
import FuzzSupport
import Penstock
import PenstockTesting

/// Receipt handles: what a store makes of any text, and of its own handles when they are changed.
enum Handles {
  /// Two stores with keys of their own.
  static let stores: [Store] = [UInt64(1), 2].map { seed in
    let environment = StoreEnvironment(
      fileSystem: SimulatedFileSystem(), clock: SimulatedClock(),
      random: StableRandom(seed: seed))
    var options = StoreOptions()
    options.segmentSize = Opening.segmentSize
    do {
      return try Store.openBlocking(at: "/store", options: options, environment: environment)
    } catch {
      complain("a store cannot be opened: \(error)")
      fatalError("no store to fuzz")
    }
  }

  static func run(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    var input = Input(data, size)
    switch input.below(3) {
    case 0: arbitrary(String(decoding: input.rest(), as: UTF8.self))
    case 1: arbitrary(Base64.encode(input.rest()))
    default: own(&input)
    }
    return 0
  }

  /// What is accepted is exactly what this store writes. That alone can be asked: libFuzzer sees
  /// the two sides of a comparison, so in time it makes handles with the right tag.
  private static func accepts(_ store: Store, _ text: String) -> Bool {
    guard let handle = store.leaseHandle(from: text) else { return false }
    check(
      store.receiptHandle(for: handle).utf8.elementsEqual(text.utf8),
      "a handle that this store did not write is accepted: \(text)")
    return true
  }

  private static func arbitrary(_ text: String) {
    let count = stores.count { accepts($0, text) }
    check(count < stores.count, "a handle is accepted by two stores: \(text)")
    let bytes = Array(text.utf8)
    if let decoded = Base64.decode(bytes) {
      check(Base64.encode(decoded) == text, "base64 changes when rewritten")
    }
    check(Base64.decode(Array(Base64.encode(bytes).utf8)) == bytes, "base64 loses bytes")
  }

  private static func own(_ input: inout Input) {
    let handle = LeaseHandle(
      queue: QueueID(UInt32(input.number(bytes: 4))), slot: UInt32(input.number(bytes: 4)),
      message: input.number(bytes: 8), token: input.number(bytes: 8))
    let text = stores[0].receiptHandle(for: handle)
    check(stores[0].leaseHandle(from: text) == handle, "a handle reads as another")
    check(stores[1].leaseHandle(from: text) == nil, "a handle of another store is accepted")
    var changed = Array(text.utf8)
    let flipped = input.below(changed.count)
    changed[flipped] ^= 1 << UInt8(input.below(8))
    let near = String(decoding: changed, as: UTF8.self)
    check(stores[0].leaseHandle(from: near) == nil, "a changed handle is accepted: \(near)")
    for _ in 0..<8 where !input.isEmpty {
      let place = input.below(changed.count + 1)
      switch input.below(4) {
      case 0: if place < changed.count { changed[place] ^= 1 << UInt8(input.below(8)) }
      case 1: if place < changed.count { changed.remove(at: place) }
      case 2: changed.insert(input.byte(), at: place)
      default: if place < changed.count { changed[place] = input.byte() }
      }
      if changed.isEmpty { break }
    }
    arbitrary(String(decoding: changed, as: UTF8.self))
  }
}
