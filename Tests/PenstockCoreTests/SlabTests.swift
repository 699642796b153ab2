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
