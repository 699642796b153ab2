// SPDX-License-Identifier: Apache-2.0
import PenstockCore
import PenstockTesting
import Testing

@Suite struct Slabs {
  @Test func aMessageTakes32Bytes() { #expect(MemoryLayout<Slot>.stride == 32) }

  @Test func aSlotKeepsMessageAndStateApart() {
    var slot = Slot()
    slot.message = 0x00ff_ffff_ffff_ffff
    slot.state = .returned
    #expect(slot.message == 0x00ff_ffff_ffff_ffff)
    #expect(slot.state == .returned)
    slot.message = 7
    #expect(slot.state == .returned)
    slot.state = .free
    #expect(slot.message == 7)
  }

  /// Sizes up to two gigabytes: never rounded down, up by less than one in 256.
  @Test func aSlotRoundsASizeUpByLittle() {
    let random = StableRandom(seed: 3)
    var sizes = [0, 1, 7, 8, 9, 4088, 4096, 4097, 8176, 8184, 8192, 1 << 20, 1 << 30]
    for power in 3..<31 {
      sizes += [(1 << power) - 8, (1 << power) - 1, 1 << power, (1 << power) + 1]
    }
    for _ in 0..<5000 { sizes.append(random.below(1 << (1 + random.below(31)))) }
    var slot = Slot()
    for size in sizes {
      slot.size = size
      #expect(slot.size >= size)
      #expect(slot.size.isMultiple(of: 8))
      #expect(slot.size < size + 8 || (slot.size - size) * 256 < size, "\(size): \(slot.size)")
      if size <= 8 * 511 { #expect(slot.size == (size + 7) & ~7) }
      // What was rounded stays: a copy of a state has the same sizes.
      let rounded = slot.size
      slot.size = rounded
      #expect(slot.size == rounded)
    }
  }

  /// Each field at its ends and at random, set in any order, keeps the others.
  @Test func aSlotKeepsItsFieldsApart() {
    let random = StableRandom(seed: 4)
    let states: [Slot.State] = [.free, .ready, .delayed, .leased, .returned, .grouped]
    let messages: [UInt64] = [0, 1, 1 << 55, 1 << 56 - 1]
    let positions: [UInt64] = [
      0, 8, 1 << 30 - 8, (1 << 28 - 1) << 32, (1 << 28 - 1) << 32 | 1 << 30 - 8,
    ]
    let sizes = [0, 8, 511 * 8, 512 * 8, 1 << 30, 1 << 31 - 8]
    var slot = Slot()
    var expected = (message: UInt64(0), state: Slot.State.free, position: UInt64(0), size: 0)
    for _ in 0..<5000 {
      switch random.below(4) {
      case 0:
        let any = random.next() >> 8
        expected.message = random.chance(1, of: 2) ? any : messages[random.below(4)]
        slot.message = expected.message
      case 1:
        expected.state = states[random.below(5)]
        slot.state = expected.state
      case 2:
        let any = (random.next() >> 36) << 32 | (random.next() >> 37) << 3
        expected.position = random.chance(1, of: 2) ? any : positions[random.below(5)]
        slot.position = expected.position
      default:
        slot.size = sizes[random.below(6)]
        expected.size = slot.size
      }
      #expect(slot.message == expected.message)
      #expect(slot.state == expected.state)
      #expect(slot.position == expected.position)
      #expect(UInt64(slot.segment) == expected.position >> 32)
      #expect(slot.size == expected.size)
      let again = Slot(words: slot.words)
      #expect(again.message == slot.message && again.state == slot.state)
      #expect(again.position == slot.position && again.size == slot.size)
    }
  }

  /// Any two words are some slot; a checkpoint may hold any.
  @Test func anyWordsAreRead() {
    let random = StableRandom(seed: 5)
    for _ in 0..<5000 {
      let slot = Slot(words: (random.next(), random.next()))
      #expect(slot.size >= 0 && slot.size < 1 << 45)
      #expect(slot.position & 7 == 0 && slot.segment < 1 << 28)
      _ = slot.state
    }
    #expect(Slot(words: (.max, .max)).state == .free)
  }

  @Test func aPlaceHasOneHolderAtATime() {
    let random = StableRandom(seed: 1)
    var slab = Slab()
    var held: [UInt32] = []
    for round in 0..<2000 {
      if held.isEmpty || random.chance(3, of: 5) {
        let index = slab.allocate()
        #expect(slab.contains(index))
        #expect(slab[index].state == .free)
        #expect(slab[index].message == 0)
        slab[index].message = UInt64(round + 1)
        #expect(!held.contains(index))
        held.append(index)
      } else {
        slab.free(held.remove(at: random.below(held.count)))
      }
      #expect(slab.count == held.count)
    }
    #expect(Set(held.map { slab[$0].message }).count == held.count)
  }

  @Test func theSameHistoryGivesTheSamePlaces() {
    func places() -> [UInt32] {
      let random = StableRandom(seed: 2)
      var slab = Slab()
      var held: [UInt32] = []
      var given: [UInt32] = []
      for _ in 0..<500 {
        if held.isEmpty || random.chance(1, of: 2) {
          held.append(slab.allocate())
          given.append(held[held.count - 1])
        } else {
          slab.free(held.remove(at: random.below(held.count)))
        }
      }
      return given
    }
    #expect(places() == places())
  }

  @Test func growsBeyondOneBlockAndKnowsItsEnd() {
    var slab = Slab()
    #expect(!slab.contains(0))
    let first = slab.allocate()
    let capacity = slab.capacity
    #expect(!slab.contains(UInt32(capacity)))
    #expect(!slab.contains(Slab.none))
    for _ in 1...capacity { _ = slab.allocate() }
    #expect(slab.count == capacity + 1)
    #expect(slab.capacity > capacity)
    #expect(slab[first].state == .free)
  }

  /// Random appends and removals beside an array.
  @Test(arguments: 0..<10) func listsAgreeWithAnArray(seed: Int) {
    let random = StableRandom(seed: UInt64(seed))
    var slab = Slab()
    var list = SlotList()
    var model: [UInt32] = []
    for _ in 0..<300 {
      if model.isEmpty || random.chance(1, of: 2) {
        let index = slab.allocate()
        list.append(index, &slab)
        model.append(index)
      } else {
        let index = model.remove(at: random.below(model.count))
        list.remove(index, &slab)
        slab.free(index)
      }
      var forward: [UInt32] = []
      var index = list.head
      while index != Slab.none {
        forward.append(index)
        index = slab[index].next
      }
      var backward: [UInt32] = []
      index = list.tail
      while index != Slab.none {
        backward.append(index)
        index = slab[index].previous
      }
      #expect(forward == model)
      #expect(backward == model.reversed())
      #expect(list.isEmpty == model.isEmpty)
    }
  }
}
