//! The series of a shard, each at a fixed place, found by hash.

use hashbrown::HashTable;

use crate::series::Series;
use crate::series_key::SeriesHash;

/// Series a page: a page is allocated at once and never moved, so growing copies nothing.
const PAGE: usize = 256;

/// The series of a shard. A place that is freed is used again.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    index: HashTable<(SeriesHash, u32)>,
    pages: Vec<Vec<Option<Series>>>,
    free: Vec<u32>,
    /// While set, freed places are kept aside (see [`Slab::keep_places`]).
    aside: Option<Vec<u32>>,
}

impl Slab {
    /// The place of a series.
    pub(crate) fn find(&self, hash: SeriesHash, key: &[u8]) -> Option<u32> {
        let same = |entry: &&(SeriesHash, u32)| entry.0 == hash && self.get(entry.1).is_some_and(|series| series.key.as_bytes() == key);
        self.index.find(hash as u64, |entry| same(&entry)).map(|entry| entry.1)
    }

    /// The place of the series with this hash.
    pub(crate) fn find_hash(&self, hash: SeriesHash) -> Option<u32> {
        self.index.find(hash as u64, |entry| entry.0 == hash).map(|entry| entry.1)
    }

    pub(crate) fn get(&self, place: u32) -> Option<&Series> {
        self.pages.get(place as usize / PAGE)?.get(place as usize % PAGE)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut Series> {
        self.pages.get_mut(place as usize / PAGE)?.get_mut(place as usize % PAGE)?.as_mut()
    }

    pub(crate) fn insert(&mut self, series: Series) -> u32 {
        let hash = series.hash;
        let place = match self.free.pop() {
            Some(place) => {
                self.pages[place as usize / PAGE][place as usize % PAGE] = Some(series);
                place
            }
            None => {
                if self.pages.last().is_none_or(|page| page.len() == PAGE) {
                    self.pages.push(Vec::with_capacity(PAGE));
                }
                let pages = self.pages.len();
                let page = &mut self.pages[pages - 1];
                page.push(Some(series));
                ((pages - 1) * PAGE + page.len() - 1) as u32
            }
        };
        self.index.insert_unique(hash as u64, (hash, place), |entry| entry.0 as u64);
        place
    }

    pub(crate) fn remove(&mut self, place: u32) -> Option<Series> {
        let series = self.pages.get_mut(place as usize / PAGE)?.get_mut(place as usize % PAGE)?.take()?;
        if let Ok(entry) = self.index.find_entry(series.hash as u64, |entry| *entry == (series.hash, place)) {
            entry.remove();
        }
        self.aside.as_mut().unwrap_or(&mut self.free).push(place);
        Some(series)
    }

    /// From now on no freed place is used again, so that a place tells which checkpoint chunk its series came from.
    pub(crate) fn keep_places(&mut self) {
        self.aside = Some(Vec::new());
    }

    /// Freed places may be used again.
    pub(crate) fn release_places(&mut self) {
        self.free.extend(self.aside.take().into_iter().flatten());
    }

    /// Number of series.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// One past the last place.
    pub(crate) fn places(&self) -> u32 {
        self.pages.last().map_or(0, |last| ((self.pages.len() - 1) * PAGE + last.len()) as u32)
    }

    /// Bytes of the index and of places that stand empty.
    pub(crate) fn bytes(&self) -> usize {
        self.index.capacity() * size_of::<(SeriesHash, u32)>() + (self.pages.len() * PAGE - self.len()) * size_of::<Option<Series>>()
    }
}
